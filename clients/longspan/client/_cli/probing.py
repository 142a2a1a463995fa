"""What torch and the attention kernels of this installation are good for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longspan.client._cli.gpus import Gpu

PROBE = "longspan.client._cli.probe"
PROBE_S = 120.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """One library of attention kernels; absent without a version and an error."""

    name: str
    version: str
    error: str


@dataclass(frozen=True, slots=True)
class Probe:
    """What importing torch and the kernels came to.

    Attributes:
        torch: its version; empty where it cannot be imported.
        error: why not.
        attention: the backend that a worker would choose; empty where there is no worker.
    """

    torch: str
    error: str
    gpus: tuple[Gpu, ...]
    kernels: tuple[Kernel, ...]
    attention: str


def run_probe() -> Probe:
    """Import torch and the kernels in another process."""
    command = [sys.executable, "-m", PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S)
    except (OSError, subprocess.SubprocessError) as error:
        return _failed(str(error))
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return _failed(f"the probe ended with status {done.returncode}: {last}")
    return parse_probe(json.loads(lines[-1]))


def parse_probe(found: Mapping[str, Any]) -> Probe:
    """The values of what the probe prints."""
    return Probe(
        torch=found["torch"] or "",
        error=found["error"],
        gpus=tuple(Gpu(**one) for one in found["gpus"]),
        kernels=tuple(Kernel(**one) for one in found["kernels"]),
        attention=found.get("attention", ""),
    )


def _failed(reason: str) -> Probe:
    return Probe(torch="", error=reason, gpus=(), kernels=(), attention="")
