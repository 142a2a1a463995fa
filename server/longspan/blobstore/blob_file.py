"""One blob's file: header and payload, written once, never believed without its checksum.

Nothing is synchronised to the disk. After a power failure a file may be torn or empty; its
checksum tells, and a cache may lose what it holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import xxhash

from longspan.blobstore.header import (
    MAX_BYTES,
    MIN_BYTES,
    SUM_BYTES,
    Damaged,
    Header,
    decode,
    header_bytes,
)
from longspan.blobstore.stats import Miss

Buffer = bytes | bytearray | memoryview
_PIECE_BYTES = 1 << 20
_VECTORS = 512  # well below IOV_MAX


def write(path: Path, magic: bytes, header: Header, parts: Sequence[memoryview]) -> None:
    """Write a new file, not readable by other users; its time is the header's.

    Raises:
        OSError: it could not be written; what is there is torn.
    """
    head = header.encode(magic)
    checksum = xxhash.xxh3_128(head)
    for part in parts:
        checksum.update(part)
    views = [memoryview(head + checksum.digest())]
    views += [part for part in parts if len(part)]
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, views)
        os.utime(fd, ns=(header.created_ns, header.created_ns))
    finally:
        os.close(fd)


def as_bytes(part: Buffer) -> memoryview:
    """A contiguous buffer of any shape as a row of bytes. Raises TypeError for another."""
    view = memoryview(part)
    return view.cast("B") if view.nbytes else memoryview(b"")


def load(path: Path, magic: bytes, key: bytes) -> bytes:
    """The payload of a file, verified.

    Raises:
        Damaged: the file is not what it should be.
        OSError: it cannot be read.
    """
    with opened(path) as fd:
        head, header = _head(fd, magic, key)
        payload = os.pread(fd, header.payload_bytes, len(head))
        _verify(head, payload, header.payload_bytes)
        return payload


def load_into(path: Path, magic: bytes, key: bytes, buffer: memoryview) -> int:
    """Fill the buffer with the payload of a file; its content is good only if nothing is raised.

    Returns its length.

    Raises:
        Damaged: the file is not what it should be, or its payload is not as long as the buffer.
        OSError: it cannot be read.
    """
    with opened(path) as fd:
        head_bytes = os.fstat(fd).st_size - len(buffer)
        if not MIN_BYTES <= head_bytes <= MAX_BYTES:
            raise Damaged(Miss.LENGTH)
        head = bytearray(head_bytes)
        # One call for both: the header's length follows from the file's.
        if os.readv(fd, [head, buffer]) != head_bytes + len(buffer):
            raise Damaged(Miss.LENGTH)
        header = decode(bytes(head), magic)
        if header.key != key:
            raise Damaged(Miss.KEY)
        _verify(bytes(head), buffer, header.payload_bytes)
        return len(buffer)


def check(path: Path, magic: bytes, key: bytes) -> Header:
    """Verify a file of any size in little memory; raises as ``load`` does."""
    with opened(path) as fd:
        head, header = _head(fd, magic, key)
        checksum = xxhash.xxh3_128(head[:-SUM_BYTES])
        piece = memoryview(bytearray(_PIECE_BYTES))
        os.lseek(fd, len(head), os.SEEK_SET)
        while count := os.readv(fd, [piece]):
            checksum.update(piece[:count])
        if checksum.digest() != head[-SUM_BYTES:]:
            raise Damaged(Miss.CHECKSUM)
        return header


def describe(path: Path, magic: bytes, key: bytes) -> tuple[Header, int]:
    """A file's header, and when it was last used (ns); raises as ``load`` does.

    The payload stays unread.
    """
    with opened(path) as fd:
        return _head(fd, magic, key)[1], os.fstat(fd).st_mtime_ns


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor to read from; damage is told with the file's inode."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    except Damaged as damage:
        damage.inode = os.fstat(fd).st_ino
        raise
    finally:
        os.close(fd)


def _head(fd: int, magic: bytes, key: bytes) -> tuple[bytes, Header]:
    start = os.pread(fd, MAX_BYTES, 0)
    head = start[: header_bytes(start, magic)]
    header = decode(head, magic)
    if header.key != key:
        raise Damaged(Miss.KEY)
    if os.fstat(fd).st_size != header.file_bytes:
        raise Damaged(Miss.LENGTH)
    return head, header


def _verify(head: bytes, payload: Buffer, expected_bytes: int) -> None:
    if len(payload) != expected_bytes:
        raise Damaged(Miss.LENGTH)
    checksum = xxhash.xxh3_128(head[:-SUM_BYTES])
    checksum.update(payload)
    if checksum.digest() != head[-SUM_BYTES:]:
        raise Damaged(Miss.CHECKSUM)


def _write_all(fd: int, views: list[memoryview]) -> None:
    """A call may write a part only, of many buffers or of one."""
    first = 0
    while first < len(views):
        written = os.writev(fd, views[first : first + _VECTORS])
        while first < len(views) and written >= len(views[first]):
            written -= len(views[first])
            first += 1
        if written:
            views[first] = views[first][written:]
