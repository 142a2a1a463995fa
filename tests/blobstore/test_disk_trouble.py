"""A disk that is full, read-only or gone: misses and failed puts, never an exception."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.stats import Miss, Put
from tests.blobstore.folders import (
    blob_files,
    check_consistent,
    index_file,
    key,
    opened,
    payload,
    put,
    remove_index,
)
from tests.support.small_disk import fail, failing_disk, small_disk

BLOB = 200_000


def test_a_full_disk_fails_puts_and_nothing_else(tmp_path: Path) -> None:
    with small_disk(tmp_path, "4m") as disk, opened(disk / "store") as store:
        (disk / "ballast").write_bytes(bytes(1_000_000))
        outcomes = [put(store, number, BLOB) for number in range(30)]
        assert outcomes.index(Put.FAILED) >= 8
        assert set(outcomes) == {Put.STORED, Put.FAILED}
        assert store.stats.io_errors >= outcomes.count(Put.FAILED)
        # There is no floor: the oldest went while that made room enough.
        kept = [number for number in range(30) if store.known(key(number))]
        assert len(kept) >= 8
        assert [store.read(key(number)) for number in kept] == [payload(n, BLOB) for n in kept]
        store.clear()
        fill(disk)
        store.refresh()
        assert put(store, 100, BLOB) in (Put.REFUSED_SPACE, Put.FAILED)
        assert list((disk / "store" / "tmp").iterdir()) == []
        (disk / "ballast").unlink()
        (disk / "rest").unlink()
        assert put(store, 101, BLOB) is Put.STORED
        assert not store.stats.degraded
        store.verify()
        check_consistent(disk / "store", store)


def test_a_write_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    """The file system takes a part of the payload only."""
    with small_disk(tmp_path, "4m") as disk, opened(disk / "store") as store:
        put(store, 1, 1_000_000)
        reserve = store._storing._victims
        store._storing._victims = lambda rows, header: []  # type: ignore[method-assign]
        assert put(store, 2, 4_000_000) is Put.FAILED
        assert list((disk / "store" / "tmp").iterdir()) == []
        assert put(store, 3, 1000) is Put.STORED
        store._storing._victims = reserve  # type: ignore[method-assign]
        assert [number for number in range(4) if store.known(key(number))] == [1, 3]
        check_consistent(disk / "store", store)


def fill(disk: Path) -> None:
    with (disk / "rest").open("wb", buffering=0) as rest, suppress(OSError):
        while rest.write(bytes(4096)):
            pass


def test_the_floor_keeps_a_small_disk_from_filling(tmp_path: Path) -> None:
    limits = StoreLimits(budget_bytes=1 << 30, floor_bytes=2_000_000)
    with small_disk(tmp_path, "8m") as disk, opened(disk / "store", limits) as store:
        for number in range(40):
            assert put(store, number, BLOB) is Put.STORED
            assert shutil.disk_usage(disk).free > 2_000_000 - 500_000  # the index is not counted
        assert store.stats.evicted > 10
        # Somebody else needs room: the store gives way.
        (disk / "ballast").write_bytes(bytes(1_500_000))
        before = store.stats.entries
        assert put(store, 50, BLOB) is Put.STORED
        assert store.stats.entries < before
        check_consistent(disk / "store", store)


def test_a_disk_that_becomes_read_only_still_answers(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    disk = tmp_path / "disk"
    with failing_disk(tmp_path / "image", disk), opened(disk / "store") as store:
        for number in range(4):
            put(store, number)
        damaged = blob_files(disk / "store")[0]
        damaged.write_bytes(b"?" * 500)
        fail(disk)
        assert put(store, 9) is Put.FAILED
        store.refresh()
        good = [number for number in range(4) if key(number).hex() != damaged.stem]
        assert [store.read(key(number)) for number in good] == [payload(n) for n in good]
        assert store.read(bytes.fromhex(damaged.stem)) is None
        assert not store.known(bytes.fromhex(damaged.stem))
        assert store.clear() == 0
        assert store.stats.io_errors >= 3
        assert [store.read(key(number)) for number in good] == [payload(n) for n in good]
        store.verify()
        list(store.entries())
        store.subjects()
        with opened(disk / "store") as late:
            assert late.stats.degraded
            assert not late.known(key(good[0]))
            assert late.read(key(good[0])) is None
            assert put(late, 9) is Put.FAILED


def test_a_folder_that_cannot_be_made_is_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with opened(tmp_path / "file" / "store") as store:
        assert store.stats.degraded
        assert put(store, 1) is Put.FAILED
        assert store.read(key(1)) is None
        assert store.clear() == 0
        assert store.subjects() == []
        assert list(store.entries()) == []
        store.refresh()
        assert store.verify().unreadable == 1
        (tmp_path / "file").unlink()
        assert put(store, 1) is Put.FAILED
        store.refresh()
        assert put(store, 1) is Put.STORED
        assert not store.stats.degraded


@pytest.mark.parametrize(
    "damage", ["torn", "zeroed", "scribbled", "empty", "text", "gone", "other"]
)
@pytest.mark.parametrize("running", [False, True])
def test_a_damaged_index_is_built_again(tmp_path: Path, damage: str, running: bool) -> None:
    with opened(tmp_path) as store:
        for number in range(200):
            put(store, number, size=10, subject="s" * 100)
    if not running:
        spoil(tmp_path, damage)
    with opened(tmp_path) as store:
        if running:
            spoil(tmp_path, damage)
            outcome = put(store, 1000)
            assert outcome in (Put.STORED, Put.FAILED)  # what is in memory may still be good
            store.refresh()
    with opened(tmp_path) as store:
        for number in range(200):
            assert store.read(key(number)) == payload(number, 10)
        check_consistent(tmp_path, store)


def spoil(folder: Path, damage: str) -> None:
    path = index_file(folder)
    data = path.read_bytes()
    if damage == "gone":
        remove_index(folder)
    elif damage == "other":
        remove_index(folder)
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE blobs (key TEXT)")
        connection.close()
    else:
        spoiled = {
            "torn": data[: len(data) // 2 + 100],
            "zeroed": bytes(len(data)),
            "scribbled": data[:4096] + b"\xa5" * (len(data) - 4096),
            "empty": b"",
            "text": b"This is no database. " * 1000,
        }
        path.write_bytes(spoiled[damage])


def test_any_flipped_byte_of_the_index_is_survived(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in range(30):
            put(store, number, size=10)
    clean = index_file(tmp_path).read_bytes()
    for place in range(0, len(clean), len(clean) // 60 + 1):
        data = bytearray(clean)
        data[place] ^= 0xFF
        remove_index(tmp_path)
        (tmp_path / "index-0123456789abcdef.sqlite3").write_bytes(data)
        with opened(tmp_path) as store:
            store.verify()
            for number in range(30):
                assert store.read(key(number)) in (payload(number, 10), None)
                assert put(store, number, size=10) in (Put.ALREADY, Put.STORED)
                assert store.read(key(number)) == payload(number, 10)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE totals SET bytes = bytes - 700",
        "UPDATE totals SET entries = 0",
        "DELETE FROM totals",
        "UPDATE blobs SET bytes = bytes + 1 WHERE id = 2",
        "DELETE FROM meta",
        "UPDATE blobs SET key = randomblob(32) WHERE id = 3",
        "UPDATE blobs SET state = 0, ticket = 'nobody-1' WHERE id = 3",
    ],
)
def test_an_index_that_says_something_wrong_is_put_right(tmp_path: Path, change: str) -> None:
    """Wrong numbers in pages that SQLite finds in order."""
    with opened(tmp_path) as store:
        for number in range(5):
            put(store, number)
    connection = sqlite3.connect(index_file(tmp_path))
    connection.execute(change)
    connection.commit()
    connection.close()
    with opened(tmp_path) as store:
        assert all(store.known(bytes.fromhex(path.stem)) for path in blob_files(tmp_path))
        assert store.stats.entries >= 4
        check_consistent(tmp_path, store)


def test_misses_are_told_apart(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, 1)
        assert store.read(key(2)) is None
        blob_files(tmp_path)[0].unlink()
        assert store.read(key(1)) is None
        assert store.read(key(1)) is None
        assert store.stats.misses == {Miss.ABSENT: 2, Miss.GONE: 1}
        check_consistent(tmp_path, store)
