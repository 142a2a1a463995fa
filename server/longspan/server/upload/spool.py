"""The file that an upload's bytes are written to while they arrive."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from longspan.server.errors import ChunkConflict, InvalidUtf8, disk_full
from longspan.server.text.utf8 import IncrementalUtf8

BLOCK_BYTES = 1 << 20


class Spool:
    """Appends chunks, hashes and checks them as UTF-8 on the way.

    Blocking; called from a thread. Bytes counted by ``size_bytes`` were handed to the
    operating system and survive the death of this process; ``finish`` makes them
    survive a power failure.

    Attributes:
        size_bytes: bytes kept.
        size_chars: code points in them.
    """

    def __init__(self, path: Path, *, free_space_bytes: int) -> None:
        self.path = path
        self.size_bytes = 0
        self.size_chars = 0
        self._free_space_bytes = free_space_bytes
        self._digest = hashlib.sha256()
        self._utf8 = IncrementalUtf8()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            for block in self._blocks():
                self._absorb(block)
        except InvalidUtf8:
            # Bytes that are no text are here when the process died before it could refuse them.
            self.close()
            raise

    def append(self, data: bytes) -> None:
        """Keep ``data`` at the end.

        Raises:
            InvalidUtf8: the bytes cannot be text.
            DiskFull: no room; nothing of ``data`` is kept.
        """
        self._check_room(len(data))
        try:
            _write_all(self._file, data)
        except OSError as error:
            os.ftruncate(self._file, self.size_bytes)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise disk_full() from error
            raise
        self._absorb(data)

    def compare(self, offset: int, data: bytes) -> None:
        """Check that bytes sent again are the bytes kept.

        Raises:
            ChunkConflict: they differ.
        """
        if os.pread(self._file, len(data), offset) != data:
            raise ChunkConflict(
                f"bytes at {offset} were sent before with other content", field="chunk.data"
            )

    def finish(self) -> str:
        """Make everything durable; return the SHA-256 as lower-case hexadecimal.

        Raises:
            InvalidUtf8: the document ends within a code point.
        """
        self._utf8.finish()
        os.fdatasync(self._file)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file and leave it where it is."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _absorb(self, data: bytes) -> None:
        self._digest.update(data)
        self.size_chars += len(self._utf8.decode(data))
        self.size_bytes += len(data)

    def _blocks(self) -> Iterator[bytes]:
        position = 0
        while block := os.pread(self._file, BLOCK_BYTES, position):
            position += len(block)
            yield block

    def _check_room(self, size_bytes: int) -> None:
        volume = os.fstatvfs(self._file)
        if volume.f_bavail * volume.f_frsize < self._free_space_bytes + size_bytes:
            raise disk_full()


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
