"""The replay's index in memory against the store on disk that it stands for."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from benchmarks.trace_replay.candidates import RecencyAndFrequency
from benchmarks.trace_replay.index import RankedIndex

from longspan.blobstore.eviction import Entry, EvictionPolicy, LeastRecentlyUsed
from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.store import BlobStore
from tests.blobstore.folders import MAGIC, blob_files, key, payload

KEYS = 12
ROOM = 5
SIZE = 1000
STEPS = 120


def file_bytes() -> int:
    """What one blob takes."""
    with tempfile.TemporaryDirectory() as folder:
        store = BlobStore(Path(folder), StoreLimits(budget_bytes=1 << 20), magic=MAGIC)
        store.put(key(0), [payload(0, SIZE)], tenant="t", cost=1.0)
        store.close()
        [file] = blob_files(Path(folder))
        return file.stat().st_size


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("policy", [LeastRecentlyUsed(), RecencyAndFrequency(60.0)])
def test_both_keep_the_same_blobs(tmp_path: Path, policy: EvictionPolicy, seed: int) -> None:
    rng = random.Random(seed)
    size = file_bytes()
    now_s = 1_000_000.0
    index = RankedIndex(ROOM * size, policy)
    store = BlobStore(
        tmp_path,
        StoreLimits(budget_bytes=ROOM * size),
        magic=MAGIC,
        policy=policy,
        clock=lambda: now_s,
    )
    for _ in range(STEPS):
        now_s += rng.choice((0.5, 1.0, 30.0))
        number = rng.randrange(KEYS)
        if key(number) in index and rng.random() < 0.6:
            index.use(key(number), now_s)
            assert store.read(key(number)) == payload(number, SIZE)
        else:
            index.put(key(number), Entry(size, 1.0), now_s)
            blob = [payload(number, SIZE)]
            store.put(key(number), blob, tenant="t", cost=1.0)
        kept = {number for number in range(KEYS) if key(number) in index}
        assert {number for number in range(KEYS) if store.known(key(number))} == kept
    assert store.stats.evicted > 0
    store.close()
