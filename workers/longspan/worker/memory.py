"""How much memory this process can still take: the machine's, or its control group's if less."""

from __future__ import annotations

from pathlib import Path

from longspan.host.memory import CGROUPS, MEMBERSHIP, MEMINFO, memory

# What is planned here is taken for good: pages of files that are in use are left to those.
UNUSED = ("inactive_file",)


def host_free_bytes() -> int | None:
    """Bytes that can be allocated without swapping; None where the system does not say."""
    return free_memory(MEMINFO, MEMBERSHIP, CGROUPS)


def free_memory(meminfo: Path, membership: Path, cgroups: Path) -> int | None:
    """The same, from files of the form that Linux gives."""
    found = memory(meminfo, membership, cgroups, UNUSED)
    return None if found is None else max(0, found.left_bytes)
