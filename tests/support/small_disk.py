"""A file system of a given size, to be filled or made read-only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; skips the test where mounting is not permitted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not permitted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def failing_disk(image: Path, folder: Path) -> Iterator[Path]:
    """An ext4 file system that ``fail`` turns read-only; skips where mounting is not permitted."""
    with image.open("wb") as file:
        file.truncate(16 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    except FileNotFoundError:
        pytest.skip("no mkfs.ext4 here")
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a file is not permitted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fail(folder: Path) -> None:
    """Make it read-only under open files, as the kernel does after an error of the device."""
    subprocess.run(["mount", "-o", "remount,abort", str(folder)], check=False)
    with pytest.raises(OSError, match="Read-only"):
        (folder / "probe").write_bytes(b"x")
