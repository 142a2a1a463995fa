"""The spool file: hashes and checks in step with its bytes, however it is cut or broken off."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.server.errors import ChunkConflict, DiskFull, InvalidUtf8
from longspan.server.upload.spool import Spool


def open_spool(folder: Path) -> Spool:
    return Spool(folder / "up.part", free_space_bytes=0)


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1), data=st.data())
def test_any_cuts_and_resumptions_give_the_digest_of_the_whole(
    text: str, data: st.DataObject
) -> None:
    content = text.encode()
    cuts = data.draw(st.lists(st.integers(0, len(content))))
    with tempfile.TemporaryDirectory() as folder:
        spool = open_spool(Path(folder))
        for start, end in pairwise([0, *sorted(cuts), len(content)]):
            spool.append(content[start:end])
            if data.draw(st.booleans()):
                spool.close()
                spool = open_spool(Path(folder))
            assert spool.size_bytes == end
        assert spool.finish() == hashlib.sha256(content).hexdigest()
        assert spool.size_chars == len(text)
        spool.compare(0, content)
        spool.close()
        assert spool.path.read_bytes() == content


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=30), data=st.data())
def test_bytes_are_refused_where_python_refuses_them(content: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(content))))
    with tempfile.TemporaryDirectory() as folder:
        spool = open_spool(Path(folder))
        try:
            refused_at = None
            try:
                for start, end in pairwise([0, *sorted(cuts), len(content)]):
                    spool.append(content[start:end])
                spool.finish()
            except InvalidUtf8 as error:
                refused_at = error.byte_offset
        finally:
            spool.close()
    assert refused_at == first_bad_byte(content)


def first_bad_byte(content: bytes) -> int | None:
    """The reference: the whole decoded at once."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


def test_other_bytes_at_a_kept_place_are_a_conflict(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(b"hello world")
    spool.compare(6, b"world")
    for offset, data in [(6, b"World"), (6, b"world!"), (11, b"x")]:
        with pytest.raises(ChunkConflict):
            spool.compare(offset, data)
    spool.close()


def test_bytes_that_are_no_text_and_outlived_a_crash_are_refused_on_opening(
    tmp_path: Path,
) -> None:
    (tmp_path / "up.part").write_bytes(b"abc\xff")
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(InvalidUtf8):
        open_spool(tmp_path)
    assert len(os.listdir("/dev/fd")) == before


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``size_bytes``: writes are cut, then refused."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_finds_no_room_keeps_nothing_of_its_chunk(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(b"a" * 1000)
    with largest_file(1500), pytest.raises(DiskFull):
        spool.append(b"b" * 1000)
    assert spool.size_bytes == spool.path.stat().st_size == 1000
    spool.append(b"c" * 1000)
    assert spool.finish() == hashlib.sha256(b"a" * 1000 + b"c" * 1000).hexdigest()
    spool.close()


def test_the_floor_of_free_space_is_kept(tmp_path: Path) -> None:
    volume = os.statvfs(tmp_path)
    floor_bytes = volume.f_blocks * volume.f_frsize
    spool = Spool(tmp_path / "up.part", free_space_bytes=floor_bytes)
    with pytest.raises(DiskFull):
        spool.append(b"x")
    assert spool.size_bytes == 0
    spool.close()
