"""Memory is that of whatever bounds this process most."""

from __future__ import annotations

from pathlib import Path

from longspan.host.memory import Memory, memory

MIB = 1 << 20


def files(folder: Path, membership: str, **groups: str) -> tuple[Path, Path, Path]:
    """A machine of 1000 MiB with 600 left, and these control groups."""
    meminfo = folder / "meminfo"
    kib = 1024
    meminfo.write_text(f"MemTotal: {1000 * kib} kB\nMemFree: 1 kB\nMemAvailable: {600 * kib} kB\n")
    (folder / "membership").write_text(membership)
    for path, content in groups.items():
        file = folder / "groups" / path.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return meminfo, folder / "membership", folder / "groups"


def test_a_host_without_bounds(tmp_path: Path) -> None:
    found = memory(*files(tmp_path, "0::/user\n", user__memory_dot_max="max\n"))
    assert found == Memory(400 * MIB, 1000 * MIB)


def test_a_container_of_version_2(tmp_path: Path) -> None:
    found = memory(
        *files(
            tmp_path,
            "0::/\n",
            memory_dot_max=f"{300 * MIB}\n",
            memory_dot_current=f"{200 * MIB}\n",
            memory_dot_stat=f"anon 5\ninactive_file {50 * MIB}\nactive_file {30 * MIB}\n",
        )
    )
    assert found == Memory(120 * MIB, 300 * MIB)


def test_the_group_above_with_less_left_counts(tmp_path: Path) -> None:
    found = memory(
        *files(
            tmp_path,
            "0::/a/b\n",
            a__memory_dot_max=f"{100 * MIB}",
            a__memory_dot_current=f"{90 * MIB}",
            a__b__memory_dot_max=f"{80 * MIB}",
            a__b__memory_dot_current=f"{10 * MIB}",
        )
    )
    assert found == Memory(90 * MIB, 100 * MIB)


def test_version_1_and_a_machine_that_says_nothing(tmp_path: Path) -> None:
    meminfo, membership, groups = files(
        tmp_path,
        "4:cpu,memory:/x\n",
        memory__x__memory_dot_limit_in_bytes=f"{100 * MIB}",
        memory__x__memory_dot_usage_in_bytes=f"{90 * MIB}",
        memory__x__memory_dot_stat=f"active_file 1\ntotal_active_file {60 * MIB}\n",
    )
    assert memory(meminfo, membership, groups) == Memory(30 * MIB, 100 * MIB)
    nowhere = tmp_path / "nowhere"
    assert memory(nowhere, nowhere, nowhere) is None
