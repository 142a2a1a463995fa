"""How much memory this process can still take: the machine's, or its control group's if less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
MEMBERSHIP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


def host_free_bytes() -> int | None:
    """Bytes that can be allocated without swapping; None where the system does not say."""
    return free_memory(MEMINFO, MEMBERSHIP, CGROUPS)


def free_memory(meminfo: Path, membership: Path, cgroups: Path) -> int | None:
    """The same, from files of the form that Linux gives."""
    known = [*_machine(meminfo), *_groups(membership, cgroups)]
    return max(0, min(known)) if known else None


def _machine(meminfo: Path) -> Iterator[int]:
    """MemAvailable: free memory and what the kernel would give up."""
    for line in _text(meminfo).splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            yield int(rest.split()[0]) * 1024


def _groups(membership: Path, root: Path) -> Iterator[int]:
    """What each limited control group above this process has left (versions 1 and 2)."""
    for line in _text(membership).splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        names = ("memory.max", "memory.current", "inactive_file")
        base = root
        if "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            base = root / "memory"
        elif controllers:
            continue
        inside = Path(path.lstrip("/"))
        for part in (inside, *inside.parents):
            yield from _left(base / part, *names)


def _left(group: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    ends, used = _text(group / limit).strip(), _text(group / usage).strip()
    if not (ends.isdigit() and used.isdigit()):
        return  # "max", or no such file: this group limits nothing
    fields = dict(line.split(" ", 1) for line in _text(group / "memory.stat").splitlines())
    yield int(ends) - int(used) + int(fields.get(reclaimable, 0))


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
