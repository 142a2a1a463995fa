"""Memory that is taken, and the bound on it: the control group's, else the machine's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
MEMBERSHIP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")

VERSION_2 = ("memory.max", "memory.current", "")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
# Pages of files that were read twice are called active, and given up all the same before a
# process is killed.
RECLAIMABLE = ("inactive_file", "active_file")


@dataclass(frozen=True, slots=True)
class Memory:
    """What is taken of a bound; files that the kernel only keeps in case are not."""

    used_bytes: int
    limit_bytes: int

    @property
    def left_bytes(self) -> int:
        """Negative beyond the bound."""
        return self.limit_bytes - self.used_bytes


def memory(
    meminfo: Path = MEMINFO,
    membership: Path = MEMBERSHIP,
    cgroups: Path = CGROUPS,
    reclaimable: Sequence[str] = RECLAIMABLE,
) -> Memory | None:
    """The one with the least left; None where the system does not say. Reads a few small files.

    Args:
        meminfo, membership, cgroups: files of the form that Linux gives.
        reclaimable: fields of a group's ``memory.stat`` that do not count as taken.
    """
    known = [*_machine(meminfo), *_groups(membership, cgroups, reclaimable)]
    return min(known, key=lambda one: one.left_bytes, default=None)


def _machine(meminfo: Path) -> Iterator[Memory]:
    fields = {}
    for line in _text(meminfo).splitlines():
        name, _, rest = line.partition(":")
        fields[name] = rest
    if {"MemTotal", "MemAvailable"} <= fields.keys():
        total, free = (int(fields[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
        yield Memory(total - free, total)


def _groups(membership: Path, root: Path, reclaimable: Sequence[str]) -> Iterator[Memory]:
    """Each limited control group above this process."""
    for line in _text(membership).splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        names, base = VERSION_2, root
        if "memory" in controllers.split(","):
            names, base = VERSION_1, root / "memory"
        elif controllers:
            continue
        inside = Path(path.lstrip("/"))
        for part in (inside, *inside.parents):
            yield from _limited(base / part, *names, reclaimable)


def _limited(
    group: Path, limit: str, usage: str, prefix: str, reclaimable: Sequence[str]
) -> Iterator[Memory]:
    most, used = _text(group / limit).strip(), _text(group / usage).strip()
    if not (most.isdigit() and used.isdigit()):
        return  # "max", or no such file: this group limits nothing
    fields = dict(line.split(" ", 1) for line in _text(group / "memory.stat").splitlines())
    cache = sum(int(fields.get(prefix + name, 0)) for name in reclaimable)
    yield Memory(max(int(used) - cache, 0), int(most))


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
