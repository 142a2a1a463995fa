"""The store of blobs: how fast it writes and reads, knows, opens and is built again.

python -m benchmarks.blobstore
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.stats import Put
from longspan.blobstore.store import BlobStore

MAGIC = b"BENCH\0\0\1"
SIZES = (256 << 10, 1 << 20, 16 << 20)
WORKING_SET_BYTES = 256 << 20
ROUNDS = 3
MANY, REBUILT = 100_000, 10_000
PLENTY = StoreLimits(budget_bytes=1 << 40)


@contextmanager
def opened(folder: Path, limits: StoreLimits = PLENTY) -> Iterator[BlobStore]:
    """A store, closed at the end."""
    store = BlobStore(folder, limits, magic=MAGIC)
    try:
        yield store
    finally:
        store.close()


def key(number: int) -> bytes:
    """The key of a blob."""
    return sha256(number.to_bytes(8, "little")).digest()


def timed(call: Callable[[int], object], numbers: Sequence[int]) -> list[float]:
    """Seconds of each call."""
    seconds = []
    for number in numbers:
        started = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)


def summary(name: str, size: int, seconds: list[float]) -> dict[str, object]:
    """Speed and latencies of calls on blobs of one size."""
    return {
        "what": name,
        "size KiB": size >> 10,
        "calls": len(seconds),
        "MB/s": round(size * len(seconds) / sum(seconds) / 1e6),
        "median ms": round(1000 * seconds[len(seconds) // 2], 3),
        "p99 ms": round(1000 * seconds[int(len(seconds) * 0.99)], 3),
    }


def transfers(folder: Path, size: int) -> list[dict[str, object]]:
    """Writing with room, writing where each blob evicts another, and reading both ways.

    Files are read again while the system still has them in memory: the store's own cost.
    """
    count = WORKING_SET_BYTES // size
    payload = os.urandom(size)
    buffer = memoryview(bytearray(size))
    numbers = range(count)

    def put(number: int) -> None:
        assert store.put(key(number), [payload], tenant="t", subject=str(number % 9)) is Put.STORED

    def read(number: int) -> None:
        assert store.read(key(number)) is not None

    def read_into(number: int) -> None:
        assert store.read_into(key(number), buffer)

    limits = StoreLimits(budget_bytes=count * (size + 4096))
    with opened(folder, limits) as store:
        rows = [summary("put", size, timed(put, numbers))]
        for name, call in (("read", read), ("read_into", read_into)):
            rows.append(summary(name, size, timed(call, list(numbers) * ROUNDS)))
        evicting = timed(put, range(count, 2 * count))
        return [*rows, summary("put, evicting", size, evicting)]


def knowing(store: BlobStore) -> dict[str, object]:
    """The cost of a look into memory."""
    keys = [key(number) for number in range(0, 2 * MANY, 7)]
    started = time.perf_counter()
    for name in keys:
        store.known(name)
    return {"what": "known", "calls": len(keys), "ns": _per_call(started, len(keys), 1e9)}


def refreshing(store: BlobStore) -> dict[str, object]:
    """The cost of asking whether anything changed."""
    started = time.perf_counter()
    for _ in range(1000):
        store.refresh()
    return {"what": "refresh, no change", "calls": 1000, "us": _per_call(started, 1000, 1e6)}


def _per_call(started: float, calls: int, scale: float) -> int:
    return round((time.perf_counter() - started) / calls * scale)


def fill(folder: Path, count: int) -> None:
    """Store that many small blobs."""
    with opened(folder) as store:
        for number in range(count):
            store.put(key(number), [b"x"], tenant=str(number % 5), subject=str(number % 100))


def opening(folder: Path, count: int, *, rebuild: bool) -> dict[str, object]:
    """Seconds until a store with so many blobs is open."""
    fill(folder, count)
    seconds = []
    for _ in range(ROUNDS):
        for path in folder.glob("index-*") if rebuild else ():
            path.unlink()
        started = time.perf_counter()
        with opened(folder) as store:
            seconds.append(time.perf_counter() - started)
            assert store.stats.entries == count
    name = "open, index built again" if rebuild else "open"
    return {"what": name, "entries": count, "s": round(min(seconds), 3)}


def main() -> list[dict[str, object]]:
    """One row a measurement."""
    rows: list[dict[str, object]] = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            rows += transfers(Path(folder), size)
    with tempfile.TemporaryDirectory() as folder:
        rows.append(opening(Path(folder), REBUILT, rebuild=True))
    with tempfile.TemporaryDirectory() as folder:
        rows.append(opening(Path(folder), MANY, rebuild=False))
        with opened(Path(folder)) as store:
            rows += [knowing(store), refreshing(store)]
    return rows


if __name__ == "__main__":
    for row in main():
        print(row)
