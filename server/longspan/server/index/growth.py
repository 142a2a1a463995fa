"""A file that may still be growing, and a way to wait for more of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Self

from longspan.server.errors import DocumentMissing


class Growth:
    """Bytes known to be in a file; readers wait for more of them, or for its end.

    The file is opened once: it may be renamed while it is read.

    Attributes:
        size_bytes: bytes that can be read now.
        complete: True once no more will come.
    """

    def __init__(self, path: Path, *, size_bytes: int, complete: bool) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._changed = asyncio.Event()
        self.size_bytes = size_bytes
        self.complete = complete

    @classmethod
    def of_complete(cls, path: Path) -> Self:
        """All bytes of a finished file.

        Raises:
            DocumentMissing: there is no such file.
        """
        try:
            return cls(path, size_bytes=path.stat().st_size, complete=True)
        except FileNotFoundError as error:
            raise DocumentMissing("the document was deleted") from error

    def grow(self, size_bytes: int) -> None:
        """More bytes can be read."""
        self.size_bytes = size_bytes
        self._changed.set()

    def finish(self) -> None:
        """No more bytes will come."""
        self.complete = True
        self._changed.set()

    async def wait_beyond(self, offset: int) -> bool:
        """Wait for bytes after ``offset``; False if the file ends there."""
        while self.size_bytes <= offset and not self.complete:
            self._changed.clear()
            await self._changed.wait()
        return self.size_bytes > offset

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Bytes from ``offset``, at most ``size_bytes``, never beyond what is known. Blocking."""
        known_bytes = max(self.size_bytes - offset, 0)
        return os.pread(self._file, min(size_bytes, known_bytes), offset)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
