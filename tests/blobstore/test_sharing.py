"""Threads, and stores as different processes have them, in one folder."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from longspan.blobstore import rows, uses
from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.removing import drop
from longspan.blobstore.stats import Miss, Put
from longspan.blobstore.store import BlobStore
from tests.blobstore.folders import (
    MAGIC,
    Ticks,
    blob_file,
    check_consistent,
    index_file,
    key,
    opened,
    payload,
    put,
    remove_index,
)


def test_what_another_adds_and_removes_is_seen_after_a_refresh(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as two:
        put(one, 1)
        assert not two.known(key(1))
        assert two.read(key(1)) is None
        two.refresh()
        assert two.read(key(1)) == payload(1)
        assert put(two, 1) is Put.ALREADY
        assert two.clear() == 1
        assert one.known(key(1))
        one.refresh()
        assert not one.known(key(1))
        assert one.stats.entries == two.stats.entries == 0


def test_a_blob_that_another_evicted_is_a_counted_miss(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as two:
        put(one, 1)
        two.clear()
        assert one.known(key(1))
        assert one.read(key(1)) is None
        assert one.stats.misses == {Miss.GONE: 1}
        assert not one.known(key(1))


def test_a_good_file_in_the_place_of_a_damaged_one_stays(tmp_path: Path) -> None:
    """Another process may have stored the blob again since its damage was seen."""
    with opened(tmp_path) as store:
        put(store, 1)
        seen = blob_file(tmp_path, 1).stat().st_ino
        shutil.copy(blob_file(tmp_path, 1), tmp_path / "copy")
        (tmp_path / "copy").rename(blob_file(tmp_path, 1))
        assert not drop(store._index, store._folder, key(1), seen)
        assert not drop(store._index, store._folder, key(1), None)
        assert store.read(key(1)) == payload(1)
        assert drop(store._index, store._folder, key(1), blob_file(tmp_path, 1).stat().st_ino)
        assert not blob_file(tmp_path, 1).exists()


def test_putting_what_another_has_makes_it_known(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as two:
        put(one, 1)
        assert put(two, 1) is Put.ALREADY
        assert two.read(key(1)) == payload(1)


def test_uses_here_save_a_blob_from_eviction_there(tmp_path: Path) -> None:
    clock, limits = Ticks(), StoreLimits(budget_bytes=4 * 1200)
    one = BlobStore(tmp_path, limits, magic=MAGIC, clock=clock)
    two = BlobStore(tmp_path, limits, magic=MAGIC, clock=clock)
    for number in range(4):
        put(one, number)
    two.refresh()
    two.read(key(0))
    two.refresh()
    put(one, 4)
    assert one.known(key(0))
    assert not one.known(key(1))
    one.close()
    two.close()


@pytest.mark.parametrize("kept", [5, 10_000])
def test_changes_missed_for_long_are_all_learnt(
    tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_CHANGES_KEPT", kept)
    monkeypatch.setattr(rows, "_TRIM_EVERY", 3)
    with opened(tmp_path) as one, opened(tmp_path) as two:
        for turn in range(4):
            for number in range(20):
                put(one, 100 * turn + number, size=10, subject=str(number % 2))
            one.remove_subject("t", "1")
            two.refresh()
            expected = [
                100 * turn + number for turn in range(turn + 1) for number in range(0, 20, 2)
            ]
            assert [number for number in range(400) if two.known(key(number))] == expected


@pytest.mark.parametrize("removed", ["index", "everything"])
def test_an_index_removed_under_running_stores_is_built_again(tmp_path: Path, removed: str) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as two:
        put(one, 1)
        two.refresh()
        if removed == "index":
            remove_index(tmp_path)
        else:
            for path in tmp_path.iterdir():
                (shutil.rmtree if path.is_dir() else Path.unlink)(path)
        assert put(one, 2) is Put.STORED
        assert put(two, 3) is Put.STORED
        one.refresh()
        assert one.read(key(3)) == payload(3)
        assert two.read(key(2)) == payload(2)
        assert one.read(key(1)) == (payload(1) if removed == "index" else None)
        index_file(tmp_path)  # one only
        assert len(os.listdir(tmp_path / "writers")) == 2  # each still sees that the other lives
        assert put(one, 4) is put(two, 5) is Put.STORED


def test_a_writer_that_lives_keeps_its_reservation(tmp_path: Path) -> None:
    limits = StoreLimits(budget_bytes=10_000)
    with opened(tmp_path, limits) as one, opened(tmp_path, limits) as two:
        held = Held(one)
        held.begin(lambda: put(one, 1, size=8_000))
        assert put(two, 1, size=8_000) is Put.ALREADY
        assert put(two, 2, size=8_000) is Put.REFUSED_SPACE
        assert put(two, 3, size=1_000) is Put.STORED
        with opened(tmp_path, limits):  # starting does not take it away either
            pass
        assert held.end() is Put.STORED
        assert one.read(key(1)) == payload(1, 8_000)


@pytest.mark.parametrize("again", [False, True])
def test_what_is_removed_while_it_is_written_does_not_appear(tmp_path: Path, again: bool) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as two:
        held = Held(one)
        held.begin(lambda: put(one, 1, subject="secret"))
        assert two.remove_subject("t", "secret") == 0
        if again:
            assert put(two, 1) is Put.STORED
        assert held.end() is Put.STORED
        one.refresh()
        assert one.known(key(1)) == two.known(key(1)) == blob_file(tmp_path, 1).exists() == again
        assert os.listdir(tmp_path / "tmp") == []
        assert one.stats.entries == again
        assert [blob.subject for blob in one.entries()] == [""] * again


class Held:
    """Holds a store's next put up between its reservation and the end of its write."""

    def __init__(self, store: BlobStore) -> None:
        self._reserved = threading.Event()
        self._go_on = threading.Event()
        self._outcome: Put | None = None
        settle = store._storing._index.transaction
        turns = count()

        def transaction() -> object:
            if next(turns) == 1:
                self._reserved.set()
                assert self._go_on.wait(20)
            return settle()

        store._storing._index.transaction = transaction  # type: ignore[method-assign,assignment]

    def begin(self, act: Callable[[], Put]) -> None:
        def work() -> None:
            self._outcome = act()

        self._thread = threading.Thread(target=work)
        self._thread.start()
        assert self._reserved.wait(20)

    def end(self) -> Put | None:
        self._go_on.set()
        self._thread.join()
        return self._outcome


def test_a_write_during_which_the_index_was_built_again_leaves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as one:
        held = Held(one)
        held.begin(lambda: put(one, 1))
        remove_index(tmp_path)
        with opened(tmp_path) as two:
            assert held.end() is Put.FAILED
            assert os.listdir(tmp_path / "tmp") == []
            assert put(one, 1) is Put.STORED
            two.refresh()
            assert two.read(key(1)) == payload(1)


@pytest.mark.parametrize("damage", ["none yet", "damaged"])
def test_processes_that_start_at_once_agree_on_one_index(tmp_path: Path, damage: str) -> None:
    if damage == "damaged":
        with opened(tmp_path) as store:
            put(store, 100)
        index_file(tmp_path).write_bytes(b"damaged" * 1000)
    children = []
    for number in range(6):
        child = os.fork()
        if child == 0:
            try:
                with opened(tmp_path) as store:
                    stored = put(store, number) is Put.STORED and put(store, 50 + number)
            finally:
                os._exit(0 if stored is Put.STORED else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    index_file(tmp_path)
    with opened(tmp_path) as store:
        expected = [*range(6), *range(50, 56), *([100] if damage == "damaged" else [])]
        assert [number for number in range(101) if store.known(key(number))] == expected
        check_consistent(tmp_path, store)


def test_more_uses_than_one_transaction_notes_are_all_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uses, "_AT_ONCE", 4)
    with opened(tmp_path) as store:
        for number in range(10):
            put(store, number)
            store.read(key(number))
        store.refresh()
        assert [blob.hits for blob in store.entries()] == [1] * 10


def test_readers_and_evictors_never_mix_blobs_up(tmp_path: Path) -> None:
    """Readers of three stores while all of them evict, remove and store the same keys again."""
    limits = StoreLimits(budget_bytes=60_000)
    wrong: list[int] = []
    hits = [0]
    stores = [BlobStore(tmp_path, limits, magic=MAGIC) for _ in range(3)]
    over = threading.Event()

    def read(store: BlobStore) -> None:
        buffer = bytearray(5_000)
        number = 0
        while not over.is_set():
            number = (number + 7) % 30
            if store.read_into(key(number), memoryview(buffer)):
                hits[0] += 1
                if bytes(buffer) != payload(number, 5_000):
                    wrong.append(number)
            if number == 0:
                store.refresh()

    def write(store: BlobStore, first: int) -> None:
        for turn in range(300):
            put(store, (first + turn * 11) % 30, size=5_000, subject=str(turn % 5))
            if turn % 50 == 0:
                store.remove_subject("t", "3")

    readers = [threading.Thread(target=read, args=(store,)) for store in stores]
    writers = [
        threading.Thread(target=write, args=(store, number)) for number, store in enumerate(stores)
    ]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    for thread in readers:
        thread.join()
    assert wrong == []
    assert hits[0] > 100
    for store in stores:
        assert set(store.stats.misses) <= {Miss.ABSENT, Miss.GONE}
        assert store.stats.io_errors == 0
        assert Put.FAILED not in store.stats.puts
    report = stores[0].verify()
    assert (report.damaged, report.missing, report.unknown) == (0, 0, 0)
    for store in stores:
        store.close()


def test_a_closed_store_knows_and_stores_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, 1)
        store.close()
        assert not store.known(key(1))
        assert store.read(key(1)) is None
        assert put(store, 2) is Put.FAILED
        store.refresh()
    assert os.listdir(tmp_path / "writers") == []
