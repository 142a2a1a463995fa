"""Free memory as Linux reports it: of the machine, and of control groups."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from longspan.worker.memory import free_memory, host_free_bytes

GIB = 1 << 30


def write(path: Path, content: str) -> Path:
    """A file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def machine(folder: Path, *, free_gib: int) -> Path:
    """A /proc/meminfo."""
    kib = free_gib << 20
    return write(folder / "meminfo", f"MemTotal: {2 * kib} kB\nMemAvailable: {kib} kB\n")


def test_this_machine_says_what_is_free() -> None:
    """Never more than the machine has available, give or take what others do meanwhile."""
    free = host_free_bytes()
    assert free is not None
    assert 0 < free <= psutil.virtual_memory().available + GIB


@pytest.mark.parametrize(("limit", "expected"), [("max", 8), (str(6 * GIB), 4)])
def test_a_control_group_of_version_2_limits(tmp_path: Path, limit: str, expected: int) -> None:
    """What the group has left counts page cache that is not in use as free; max limits nothing."""
    membership = write(tmp_path / "cgroup", "0::/pod/worker\n")
    write(tmp_path / "groups/pod/memory.max", limit)
    write(tmp_path / "groups/pod/memory.current", str(3 * GIB))
    write(tmp_path / "groups/pod/memory.stat", f"anon 1\ninactive_file {GIB}\n")
    meminfo = machine(tmp_path, free_gib=8)
    assert free_memory(meminfo, membership, tmp_path / "groups") == expected * GIB


def test_a_control_group_of_version_1_limits(tmp_path: Path) -> None:
    """Inside a container the group's path is that of the host, and its files lie at the root."""
    membership = write(tmp_path / "cgroup", "4:memory:/docker/ab\n3:cpuset:/\n0::/\n")
    write(tmp_path / "groups/memory/memory.limit_in_bytes", str(4 * GIB))
    write(tmp_path / "groups/memory/memory.usage_in_bytes", str(3 * GIB))
    meminfo = machine(tmp_path, free_gib=8)
    assert free_memory(meminfo, membership, tmp_path / "groups") == GIB


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    """Never less than nothing."""
    membership = write(tmp_path / "cgroup", "0::/\n")
    write(tmp_path / "groups/memory.max", str(GIB))
    write(tmp_path / "groups/memory.current", str(2 * GIB))
    meminfo = machine(tmp_path, free_gib=8)
    assert free_memory(meminfo, membership, tmp_path / "groups") == 0


def test_where_the_system_says_nothing_nothing_is_known(tmp_path: Path) -> None:
    """Systems without these files are no error."""
    assert free_memory(tmp_path / "a", tmp_path / "b", tmp_path / "c") is None
