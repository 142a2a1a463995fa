"""An index built from the files is the index that was lost; strangers' files are left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from longspan.blobstore.stats import Put
from tests.blobstore.folders import (
    MAGIC,
    OTHER_MAGIC,
    blob_file,
    blob_files,
    check_consistent,
    index_file,
    key,
    opened,
    payload,
    put,
    remove_index,
)


def test_a_scan_gives_the_same_index(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in range(50):
            store.put(
                key(number),
                [payload(number, number)],
                tenant=f"tenant {number % 3}",
                subject=f"Ünterlage {number % 7}",
                label="x" * number,
                parent=key(number - 1) if number % 5 else None,
                cost=number / 7,
            )
        before = {blob.key: blob for blob in store.entries()}
        sums = store.subjects()
    remove_index(tmp_path)
    with opened(tmp_path) as store:
        assert {blob.key: blob for blob in store.entries()} == before
        assert store.subjects() == sums
        assert {blob.key for blob in before.values() if store.known(blob.key)} == set(before)
        assert [blob.depth for blob in before.values()] == [number % 5 for number in range(50)]
        check_consistent(tmp_path, store)


def test_a_good_index_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in range(3):
            put(store, number, size=100 * number)
        store.read(key(1))
        before = index_file(tmp_path)
        with opened(tmp_path):
            pass
    with opened(tmp_path) as store:
        assert index_file(tmp_path) == before
        assert [blob.hits for blob in store.entries()] == [0, 1, 0]


def test_a_scan_believes_no_damaged_header(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in range(6):
            put(store, number, size=100)
    for number, place in enumerate((0, 9, 50, 90, 118)):
        data = bytearray(blob_file(tmp_path, number).read_bytes())
        data[place] ^= 4
        blob_file(tmp_path, number).write_bytes(data)
    remove_index(tmp_path)
    with opened(tmp_path) as store:
        assert [store.known(key(number)) for number in range(6)] == [False] * 5 + [True]
        assert blob_files(tmp_path) == [blob_file(tmp_path, 5)]
        check_consistent(tmp_path, store)


def test_files_and_index_that_disagree_are_brought_together(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in range(4):
            put(store, number)
    blob_file(tmp_path, 0).unlink()
    with opened(tmp_path / "elsewhere") as store:
        put(store, 9)
    moved = blob_file(tmp_path, 9)
    moved.parent.mkdir(exist_ok=True)
    blob_file(tmp_path / "elsewhere", 9).rename(moved)
    with opened(tmp_path) as store:
        assert [number for number in range(10) if store.known(key(number))] == [1, 2, 3, 9]
        assert store.read(key(9)) == payload(9)
        assert store.stats.entries == 4


@pytest.mark.parametrize("rebuild", [False, True])
def test_another_kind_takes_the_folder_over(tmp_path: Path, rebuild: bool) -> None:
    """Pages of an older layout are of no use; a process that still runs must not fight for them."""
    with opened(tmp_path) as old:
        put(old, 1)
        if rebuild:
            remove_index(tmp_path)
        with opened(tmp_path, magic=OTHER_MAGIC) as new:
            assert not new.known(key(1))
            assert blob_files(tmp_path) == []
            assert put(new, 2) is Put.STORED
            old.refresh()
            assert not old.known(key(1))
            assert old.read(key(1)) is None
            assert put(old, 3) is Put.FAILED
            assert new.read(key(2)) == payload(2)
            assert old.stats.degraded


def test_strangers_files_are_left_alone(tmp_path: Path) -> None:
    strangers = [
        tmp_path / "notes.txt",
        tmp_path / "ab" / "notes.txt",
        tmp_path / "ab" / "abc.blob",
        tmp_path / "ab" / ("cd" + "0" * 62 + ".blob"),  # not in its folder
        tmp_path / "index-of-nothing.sqlite3",
        tmp_path / "folder" / "x.blob",
    ]
    for path in strangers:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    odd = tmp_path / "ab" / ("ab" + "0" * 62 + ".blob")
    odd.mkdir()
    for rebuild in (False, True):
        if rebuild:
            remove_index_of_ours(tmp_path)
        with opened(tmp_path) as store:
            put(store, 1)
            store.verify()
            store.clear()
            assert store.stats.bytes == 0
    assert all(path.read_text() == "mine" for path in strangers)
    assert odd.is_dir()


def remove_index_of_ours(folder: Path) -> None:
    for path in folder.glob("index-*"):
        if path.name != "index-of-nothing.sqlite3":
            path.unlink()


def test_verify_puts_right_what_it_finds(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for number in range(8):
            put(store, number, size=3_000_000 if number == 7 else 1000)
        blob_file(tmp_path, 0).unlink()
        os.truncate(blob_file(tmp_path, 1), 900)
        data = bytearray(blob_file(tmp_path, 7).read_bytes())
        data[2_900_000] ^= 1
        blob_file(tmp_path, 7).write_bytes(data)
        stray = blob_file(tmp_path, 99)
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(blob_file(tmp_path, 2).read_bytes())
        report = store.verify()
        assert (report.checked, report.damaged, report.missing, report.unknown) == (5, 2, 1, 1)
        assert report.bytes == sum(path.stat().st_size for path in blob_files(tmp_path))
        assert [number for number in range(8) if store.known(key(number))] == [2, 3, 4, 5, 6]
        check_consistent(tmp_path, store)


def test_a_magic_has_eight_bytes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8 bytes"), opened(tmp_path, magic=MAGIC + b"x"):
        pass
