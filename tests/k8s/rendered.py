"""Kustomizations as the objects that ``kubectl apply -k`` would send."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.data import REPOSITORY

K8S = REPOSITORY / "k8s"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())
COMPONENTS = sorted(folder.name for folder in (K8S / "components").iterdir())
# What is applied by itself; base and components are parts of overlays.
APPLIED = [*(f"overlays/{name}" for name in OVERLAYS), "model-volume", "namespace"]

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod's specification, and whose pod it is."""

    owner: str
    labels: dict[str, str]
    spec: Object
    claims: tuple[Object, ...] = ()

    @property
    def container(self) -> Object:
        """Its only container."""
        [container] = self.spec["containers"]
        assert isinstance(container, dict)
        return container


@dataclass(frozen=True)
class Rendered:
    """All objects of one kustomization."""

    objects: tuple[Object, ...]

    def of_kind(self, kind: str) -> list[Object]:
        """Objects of one kind."""
        return [item for item in self.objects if item["kind"] == kind]

    def pods(self) -> Iterator[Pod]:
        """Pods, and the pods that other objects make."""
        for item in self.objects:
            owner = f"{item['kind']}/{item['metadata']['name']}"
            spec = item.get("spec", {})
            if item["kind"] == "Pod":
                yield Pod(owner, item["metadata"]["labels"], spec)
            elif "template" in spec:
                template = spec["template"]
                claims = tuple(spec.get("volumeClaimTemplates", ()))
                yield Pod(owner, template["metadata"]["labels"], template["spec"], claims)

    def server(self) -> Pod:
        """The pod that serves."""
        [pod] = [pod for pod in self.pods() if pod.owner == "StatefulSet/longspan"]
        return pod

    def ports(self) -> dict[str, int]:
        """The server's ports by their names."""
        return {p["name"]: p["containerPort"] for p in self.server().container["ports"]}

    def selected(self, labels: dict[str, str]) -> list[str]:
        """Owners of the pods that have all the labels."""
        return [pod.owner for pod in self.pods() if labels.items() <= pod.labels.items()]

    def policies(self) -> dict[str, Object]:
        """The specifications of network policies by their names."""
        return {p["metadata"]["name"]: p["spec"] for p in self.of_kind("NetworkPolicy")}


@cache
def render(folder: str) -> Rendered:
    """Render a folder below k8s/; skips the test where nothing here can."""
    return build(K8S / folder)


def build(folder: Path) -> Rendered:
    """Render any folder; skips the test where nothing here can."""
    command = [*_builder(), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr  # kustomize warns of what it will stop supporting
    return Rendered(tuple(yaml.safe_load_all(done.stdout)))


def kustomization(folder: Path) -> Object:
    """A kustomization as it is written."""
    content = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    assert isinstance(content, dict)
    return content


def _builder() -> list[str]:
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    pytest.skip("neither kustomize nor kubectl is here")
