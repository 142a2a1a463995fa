"""Pods run under the pod security standard that their namespace enforces."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s.pod_security import violations
from tests.k8s.quantity import quantity
from tests.k8s.rendered import APPLIED, render
from tests.support.data import REPOSITORY

VARIANTS = ("cpu", "cuda")
# Images of others: an exact version, so that two nodes run the same.
FOREIGN = {"Deployment/longspan-redis": r"valkey/valkey:\d+\.\d+\.\d+-alpine"}


@pytest.mark.parametrize("folder", APPLIED)
def test_pods_are_restricted(folder: str) -> None:
    for pod in render(folder).pods():
        assert violations(pod.spec) == [], pod.owner


def test_the_namespace_enforces_it() -> None:
    [namespace] = render("namespace").of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


SPOILED: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "hostNetwork": lambda pod, _: pod.update(hostNetwork=True),
    "a service account's token": lambda pod, _: pod.pop("automountServiceAccountToken"),
    "volume host of type hostPath": lambda pod, _: pod["volumes"].append(
        {"name": "host", "hostPath": {"path": "/"}}
    ),
    "server: no seccomp profile": lambda pod, _: pod["securityContext"].pop("seccompProfile"),
    "server: root": lambda pod, _: pod["securityContext"].update(runAsUser=0),
    "server: privileged": lambda _, own: own.update(privileged=True),
    "server: privilege escalation": lambda _, own: own.pop("allowPrivilegeEscalation"),
    "server: a writable root file system": lambda _, own: own.pop("readOnlyRootFilesystem"),
    "server: capabilities": lambda _, own: own["capabilities"].update(add=["NET_RAW"]),
}


@pytest.mark.parametrize("problem", SPOILED)
def test_a_pod_that_is_not_would_be_seen(problem: str) -> None:
    pod = copy.deepcopy(render("overlays/dev-cpu").server().spec)
    SPOILED[problem](pod, pod["containers"][0]["securityContext"])
    assert violations(pod) == [problem]


@pytest.mark.parametrize("folder", APPLIED)
def test_images_are_of_this_version(folder: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    for pod in render(folder).pods():
        if pod.owner in FOREIGN:
            assert re.fullmatch(FOREIGN[pod.owner], pod.container["image"])
            continue
        match = re.fullmatch(r"longspan:(.*)-(\w+)", pod.container["image"])
        assert match is not None, pod.container["image"]
        assert (match[1], match[2] in VARIANTS) == (project["version"], True)


@pytest.mark.parametrize("folder", APPLIED)
def test_memory_is_promised_and_cpu_is_not_throttled(folder: str) -> None:
    for pod in render(folder).pods():
        resources = pod.container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert quantity(resources["requests"]["cpu"]) > 0
        assert "cpu" not in resources["limits"]


@pytest.mark.parametrize("folder", APPLIED)
def test_what_lies_in_memory_or_on_the_nodes_disk_is_bounded(folder: str) -> None:
    for pod in render(folder).pods():
        allowed = quantity(pod.container["resources"]["limits"].get("ephemeral-storage", "0"))
        scratch = [v["emptyDir"] for v in pod.spec["volumes"] if "emptyDir" in v]
        assert sum(quantity(volume["sizeLimit"]) for volume in scratch) <= allowed
