"""Stores to test, and what lies in their folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longspan.blobstore.eviction import EvictionPolicy
from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.stats import Put
from longspan.blobstore.store import BlobStore

MAGIC = b"TESTING1"
OTHER_MAGIC = b"TESTING2"
PLENTY = StoreLimits(budget_bytes=1 << 30)


def key(number: int) -> bytes:
    return hashlib.sha256(f"key {number}".encode()).digest()


def payload(number: int, size: int = 1000) -> bytes:
    return hashlib.shake_128(f"payload {number}".encode()).digest(size)


def put(
    store: BlobStore, number: int, size: int = 1000, tenant: str = "t", subject: str = ""
) -> Put:
    return store.put(key(number), [payload(number, size)], tenant=tenant, subject=subject)


@contextmanager
def opened(
    folder: Path,
    limits: StoreLimits = PLENTY,
    magic: bytes = MAGIC,
    policy: EvictionPolicy | None = None,
) -> Iterator[BlobStore]:
    store = BlobStore(folder, limits, magic=magic, policy=policy)
    try:
        yield store
    finally:
        store.close()


class Ticks:
    """A clock that goes on by a second with each look."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def blob_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*.blob"))


def blob_file(folder: Path, number: int) -> Path:
    name = key(number).hex()
    return folder / name[:2] / f"{name}.blob"


def index_file(folder: Path) -> Path:
    [path] = folder.glob("index-*.sqlite3")
    return path


def remove_index(folder: Path) -> None:
    for path in folder.glob("index-*"):
        path.unlink()


def check_consistent(folder: Path, store: BlobStore) -> None:
    """Files, index and counts agree, nothing half-written is left, every blob is good."""
    files = blob_files(folder)
    assert os.listdir(folder / "tmp") == []
    assert len(os.listdir(folder / "writers")) == 1
    assert store.stats.bytes == sum(path.stat().st_size for path in files)
    assert store.stats.entries == len(files)
    assert {blob.key.hex() for blob in store.entries()} == {path.stem for path in files}
    report = store.verify()
    assert (report.checked, report.bytes) == (len(files), store.stats.bytes)
    assert (report.damaged, report.missing, report.unknown, report.unreadable) == (0, 0, 0, 0)
