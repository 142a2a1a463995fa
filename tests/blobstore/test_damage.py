"""A damaged file is a counted miss and goes; it is never an answer."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from longspan.blobstore.header import MIN_BYTES
from longspan.blobstore.stats import Miss, Put
from longspan.blobstore.store import BlobStore
from tests.blobstore.folders import (
    MAGIC,
    OTHER_MAGIC,
    blob_file,
    check_consistent,
    key,
    opened,
    payload,
    put,
)

SIZE = 700
DAMAGE = (Miss.LENGTH, Miss.MAGIC, Miss.VERSION, Miss.HEADER, Miss.KEY, Miss.CHECKSUM)


def by_read(store: BlobStore, number: int) -> bytes | None:
    return store.read(key(number))


def by_read_into(store: BlobStore, number: int) -> bytes | None:
    buffer = bytearray(SIZE)
    return bytes(buffer) if store.read_into(key(number), memoryview(buffer)) else None


WAYS = [by_read, by_read_into]
Way = Callable[[BlobStore, int], bytes | None]


def check_is_damage(folder: Path, store: BlobStore, way: Way, *reasons: Miss) -> None:
    """Blob 1 is a miss for one of the reasons; its file goes; it can be stored again."""
    before = dict(store.stats.misses)
    assert way(store, 1) is None
    counted = {r: n - before.get(r, 0) for r, n in store.stats.misses.items()}
    [(reason, count)] = [(r, n) for r, n in counted.items() if n]
    assert count == 1
    assert reason in (reasons or DAMAGE)
    assert not blob_file(folder, 1).exists()
    assert not store.known(key(1))
    assert put(store, 1, SIZE) is Put.STORED
    assert way(store, 1) == payload(1, SIZE)


@pytest.mark.parametrize("way", WAYS)
def test_no_flipped_bit_is_an_answer(tmp_path: Path, way: Way) -> None:
    choose = random.Random(7)
    with opened(tmp_path) as store:
        put(store, 1, SIZE)
        length = blob_file(tmp_path, 1).stat().st_size
        # Every byte of the header's fields, then anywhere.
        places = [*range(MIN_BYTES), *(choose.randrange(length) for _ in range(500 - MIN_BYTES))]
        for place in places:
            data = bytearray(blob_file(tmp_path, 1).read_bytes())
            data[place] ^= 1 << choose.randrange(8)
            blob_file(tmp_path, 1).write_bytes(data)
            check_is_damage(tmp_path, store, way)
        assert sum(store.stats.misses.values()) == 500
        assert store.stats.hits == 500
        check_consistent(tmp_path, store)


@pytest.mark.parametrize("way", WAYS)
def test_no_truncated_file_is_an_answer(tmp_path: Path, way: Way) -> None:
    with opened(tmp_path) as store:
        put(store, 1, SIZE)
        length = blob_file(tmp_path, 1).stat().st_size
        head = length - SIZE
        for kept in (0, 1, 7, 8, 15, 16, MIN_BYTES - 1, MIN_BYTES, head - 16, head - 1, head):
            os.truncate(blob_file(tmp_path, 1), kept)
            check_is_damage(tmp_path, store, way, Miss.LENGTH)
        for kept in (head + 1, head + SIZE // 2, length - 1, length + 1, length + 5000):
            os.truncate(blob_file(tmp_path, 1), kept)
            check_is_damage(tmp_path, store, way, Miss.LENGTH, Miss.HEADER)
        check_consistent(tmp_path, store)


@pytest.mark.parametrize("way", WAYS)
def test_swapped_files_answer_for_no_other_key(tmp_path: Path, way: Way) -> None:
    with opened(tmp_path) as store:
        put(store, 1, SIZE)
        put(store, 2, SIZE)
        one, two = blob_file(tmp_path, 1), blob_file(tmp_path, 2)
        one.rename(tmp_path / "x")
        two.rename(one)
        (tmp_path / "x").rename(two)
        assert way(store, 2) is None
        check_is_damage(tmp_path, store, way, Miss.KEY)
        assert store.stats.misses == {Miss.KEY: 2}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_of_another_kind_is_no_answer(tmp_path: Path, way: Way) -> None:
    with opened(tmp_path / "a") as store, opened(tmp_path / "b", magic=OTHER_MAGIC) as other:
        put(store, 1, SIZE)
        put(other, 1, SIZE)
        blob_file(tmp_path / "b", 1).replace(blob_file(tmp_path / "a", 1))
        check_is_damage(tmp_path / "a", store, way, Miss.MAGIC)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_of_another_version_is_no_answer(tmp_path: Path, way: Way) -> None:
    with opened(tmp_path) as store:
        put(store, 1, SIZE)
        data = bytearray(blob_file(tmp_path, 1).read_bytes())
        data[len(MAGIC)] += 1
        blob_file(tmp_path, 1).write_bytes(data)
        check_is_damage(tmp_path, store, way, Miss.VERSION)


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1, 10 * SIZE])
def test_a_payload_of_another_length_than_expected_is_damage(tmp_path: Path, size: int) -> None:
    with opened(tmp_path) as store:
        put(store, 1, SIZE)
        assert not store.read_into(key(1), memoryview(bytearray(size)))
        assert not blob_file(tmp_path, 1).exists()
        [(reason, count)] = store.stats.misses.items()
        assert reason in (Miss.LENGTH, Miss.HEADER)
        assert count == 1


def test_a_file_that_cannot_be_opened_stays(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, 1, SIZE)
        path = blob_file(tmp_path, 1)
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere")
        assert store.read(key(1)) is None
        assert store.stats.misses == {Miss.IO: 1}
        assert store.stats.io_errors == 1
        assert store.known(key(1))


def test_files_are_for_their_user_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        put(store, 1)
        for path in (tmp_path / "store").rglob("*"):
            expected = 0o700 if path.is_dir() else 0o600
            assert path.stat().st_mode & 0o777 == expected, path
