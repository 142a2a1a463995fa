"""What the pod security standard ``restricted`` says, and what this project asks beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Spec = dict[str, Any]

VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
SECCOMP = frozenset({"RuntimeDefault", "Localhost"})


def violations(pod: Spec) -> list[str]:
    """Everything about a pod's specification that is not allowed; empty when it may run."""
    found = [*_of_pod(pod), *_of_volumes(pod)]
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(kind, ()):
            found += [f"{container['name']}: {text}" for text in _of_container(pod, container)]
    return found


def _of_pod(pod: Spec) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    if pod.get("securityContext", {}).get("sysctls"):
        yield "sysctls"
    if pod.get("automountServiceAccountToken") is not False:
        yield "a service account's token"


def _of_volumes(pod: Spec) -> Iterator[str]:
    for volume in pod.get("volumes", ()):
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']} of type {kind}"


def _of_container(pod: Spec, container: Spec) -> Iterator[str]:
    own = container.get("securityContext", {})
    context = {**pod.get("securityContext", {}), **own}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "privilege escalation"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "a writable root file system"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()) or capabilities.get("add"):
        yield "capabilities"
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "root"
    if context.get("seccompProfile", {}).get("type") not in SECCOMP:
        yield "no seccomp profile"
    if any("hostPort" in port for port in container.get("ports", ())):
        yield "a port of the host"
