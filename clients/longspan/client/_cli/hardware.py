"""Memory and instructions of this machine."""

from __future__ import annotations

import os
from pathlib import Path

# Control groups, second and first version: a container's memory may be less than the machine's.
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_bytes() -> int | None:
    """Memory that this process may use at most; None where the system does not say."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return min([machine, *filter(None, map(_limit, MEMORY_LIMITS))])


def cpu_flags() -> frozenset[str] | None:
    """Names of instruction sets, as Linux spells them; None on other systems."""
    try:
        return frozenset(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        return None


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 matrix products."""
    return bool((cpu_flags() or frozenset()) & {"avx512_bf16", "amx_tile"})


def _limit(path: Path) -> int | None:
    try:
        text = path.read_text("utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
