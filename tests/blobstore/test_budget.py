"""Budget, quota and floor hold at every moment, and the right blobs go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from longspan.blobstore.eviction import Entry
from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.stats import Put
from longspan.blobstore.store import BlobStore
from tests.blobstore.folders import (
    MAGIC,
    Ticks,
    blob_file,
    blob_files,
    check_consistent,
    key,
    opened,
    put,
    remove_index,
)

FILE = 1200  # a blob of 1000 bytes and its header, and a little more


def numbers(store: BlobStore, count: int = 20) -> list[int]:
    return [number for number in range(count) if store.known(key(number))]


def test_the_blob_used_longest_ago_goes_first(tmp_path: Path) -> None:
    limits = StoreLimits(budget_bytes=4 * FILE)
    store = BlobStore(tmp_path, limits, magic=MAGIC, clock=Ticks())
    for number in range(4):
        put(store, number)
    store.read(key(0))
    assert put(store, 4) is Put.STORED
    assert numbers(store) == [0, 2, 3, 4]
    put(store, 2)  # already there, and now used
    put(store, 5)
    assert numbers(store) == [0, 2, 4, 5]
    assert store.stats.evicted == 2
    store.close()


@pytest.mark.parametrize("rebuild", [False, True])
def test_ranks_outlive_the_process_and_the_index(tmp_path: Path, rebuild: bool) -> None:
    limits, clock = StoreLimits(budget_bytes=4 * FILE), Ticks()
    store = BlobStore(tmp_path, limits, magic=MAGIC, clock=clock)
    for number in range(4):
        put(store, number)
    store.read(key(0))
    store.close()
    if rebuild:
        remove_index(tmp_path)
    store = BlobStore(tmp_path, limits, magic=MAGIC, clock=clock)
    put(store, 4)
    put(store, 5)
    assert numbers(store) == [0, 3, 4, 5]
    store.close()


class Dearest:
    """Cost, hits and depth, and how far eviction has come."""

    def __init__(self) -> None:
        self.floors: list[float] = []

    def rank(self, entry: Entry, *, used_s: float, hits: int, floor: float) -> float:
        self.floors.append(floor)
        return floor + 10 * entry.cost_s + hits - entry.depth


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_policy_sees_cost_depth_hits_and_the_last_rank(tmp_path: Path, rebuild: bool) -> None:
    policy, limits = Dearest(), StoreLimits(budget_bytes=4 * FILE)
    store = BlobStore(tmp_path, limits, magic=MAGIC, policy=policy)
    for number, (cost, parent) in enumerate([(2.0, None), (1.0, None), (1.0, 1), (1.0, 2)]):
        before = None if parent is None else key(parent)
        store.put(key(number), [bytes(1000)], tenant="t", cost=cost, parent=before)
    assert [blob.depth for blob in store.entries()] == [0, 0, 1, 2]
    if rebuild:
        store.close()
        remove_index(tmp_path)
        store = BlobStore(tmp_path, limits, magic=MAGIC, policy=policy)
        assert sorted(blob.depth for blob in store.entries()) == [0, 0, 1, 2]
    store.read(key(2))  # ranks 20, 10, 10, 8
    store.read(key(2))  # 20, 10, 11, 8
    store.put(key(4), [bytes(1000)], tenant="t", cost=3.0)
    assert numbers(store) == [0, 1, 2, 4]
    store.put(key(5), [bytes(1000)], tenant="t", cost=3.0)
    assert numbers(store) == [0, 2, 4, 5]
    assert set(policy.floors) == {0.0, 8.0, 10.0}
    store.close()


def test_a_tenant_at_its_share_gives_up_its_own(tmp_path: Path) -> None:
    with opened(tmp_path, StoreLimits(budget_bytes=8 * FILE, tenant_share=0.5)) as store:
        for number in range(3):
            put(store, number, tenant="quiet")
        for number in range(3, 15):
            assert put(store, number, tenant="loud") is Put.STORED
        assert numbers(store) == [0, 1, 2, 11, 12, 13, 14]
        sums = {subject.tenant: subject.bytes for subject in store.subjects()}
        assert max(sums.values()) <= 4 * FILE
        assert put(store, 15, size=4 * FILE, tenant="loud") is Put.REFUSED_QUOTA
        assert put(store, 15, size=4 * FILE, tenant="new") is Put.REFUSED_QUOTA
        assert put(store, 15, size=8 * FILE, tenant="new") is Put.REFUSED_SPACE
        assert numbers(store) == [0, 1, 2, 11, 12, 13, 14]
        check_consistent(tmp_path, store)


def test_the_floor_of_free_space_stays_free(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in range(5):
            put(store, number)
    free = shutil.disk_usage(tmp_path).free
    # Everything would have to go, and that would not be enough: nothing goes.
    with opened(tmp_path, StoreLimits(budget_bytes=1 << 30, floor_bytes=2 * free)) as store:
        assert numbers(store) == []
        assert put(store, 9) is Put.REFUSED_SPACE
        assert blob_files(tmp_path) == []


def test_a_smaller_budget_holds_from_the_start(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in range(10):
            put(store, number)
    with opened(tmp_path, StoreLimits(budget_bytes=3 * FILE)) as store:
        assert numbers(store) == [7, 8, 9]
        check_consistent(tmp_path, store)


def test_an_empty_budget_stores_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, StoreLimits(budget_bytes=0)) as store:
        assert put(store, 1) is Put.REFUSED_SPACE
        assert not store.known(key(1))


def test_unusable_limits_are_refused() -> None:
    for wrong in ((-1, 0, 1.0), (1, -1, 1.0), (1, 1, 0.0), (1, 1, 1.5)):
        with pytest.raises(ValueError, match="no store"):
            StoreLimits(*wrong)


WRITER = """
import sys
from pathlib import Path
from longspan.blobstore.limits import StoreLimits
from tests.blobstore.folders import MAGIC, key, opened, payload
folder, first, budget = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with opened(folder, StoreLimits(budget_bytes=budget, tenant_share=0.5)) as store:
    for number in range(first, first + 400):
        store.put(key(number), [payload(number, 1000 * (number % 50))], tenant=str(number % 3))
    print(store.stats.io_errors)
"""


def files_now(folder: Path) -> dict[tuple[str, int, int], int]:
    found = {}
    for path in [*folder.glob("??/*.blob"), *folder.glob("tmp/*")]:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        changed = 0 if path.parent.name == "tmp" else status.st_mtime_ns
        found[path.name, status.st_ino, changed] = status.st_size
    return found


def watch(folder: Path, over: threading.Event, sums: list[int]) -> None:
    """Sums of files that were there before and after a moment, and therefore at that moment."""
    before = files_now(folder)
    while not over.is_set():
        after = files_now(folder)
        sums.append(sum(min(size, after[name]) for name, size in before.items() if name in after))
        before = after


def test_the_budget_holds_while_threads_and_processes_write(tmp_path: Path) -> None:
    budget, largest = 600_000, 50_000
    over, sums = threading.Event(), list[int]()
    with opened(tmp_path, StoreLimits(budget_bytes=budget, tenant_share=0.5)) as store:
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        others = [
            subprocess.Popen([*command, first, str(budget)], stdout=subprocess.PIPE, text=True)
            for first in ("1000", "2000")
        ]
        watcher = threading.Thread(target=watch, args=(tmp_path, over, sums))
        watcher.start()

        def write(first: int) -> None:
            for number in range(first, first + 200):
                put(store, number, size=1000 * (number % 50), tenant=str(number % 3))

        threads = [threading.Thread(target=write, args=(first,)) for first in (3000, 4000, 5000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        errors = [int(other.communicate()[0]) for other in others]
        over.set()
        watcher.join()
        assert errors == [0, 0]
        assert store.stats.io_errors == 0
        assert len(sums) > 20
        assert budget // 2 < max(sums) <= budget + largest
        store.refresh()
        assert store.stats.bytes <= budget
        assert max(subject.bytes for subject in store.subjects()) <= budget // 2
        check_after_sharing(tmp_path, store)


def check_after_sharing(folder: Path, store: BlobStore) -> None:
    check_consistent(folder, store)
    assert os.listdir(folder / "tmp") == []
    assert all(store.known(bytes.fromhex(path.stem)) for path in blob_files(folder))
    assert not any(
        store.known(key(n)) for n in range(1000, 6000) if not blob_file(folder, n).exists()
    )


@pytest.mark.parametrize("rebuild", [False, True])
def test_small_blobs_count_for_the_blocks_that_they_take(tmp_path: Path, rebuild: bool) -> None:
    limits = StoreLimits(budget_bytes=8 << 12, block_bytes=1 << 12)
    for first in (0, 20):
        with opened(tmp_path, limits) as store:
            for number in range(first, first + 20):
                assert put(store, number, size=100) is Put.STORED
            assert (store.stats.entries, store.stats.bytes) == (8, 8 << 12)
            assert len(blob_files(tmp_path)) == 8
        if rebuild:
            remove_index(tmp_path)
