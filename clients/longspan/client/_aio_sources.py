"""Sources that are read without holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

from longspan.client._exceptions import SourceSpent
from longspan.client._readers import PLAIN
from longspan.client._sources import (
    AsyncSource,
    BytesReader,
    Reader,
    as_bytes,
    open_source,
)


class AsyncReader(Protocol):
    """Reads a source once, or again from its beginning."""

    title: str
    media_type: str
    size_bytes: int | None

    async def read(self, size_bytes: int) -> bytes:
        """The next bytes, at most so many; empty at the end."""
        ...

    async def rewind(self) -> None:
        """Begin again."""
        ...

    async def close(self) -> None:
        """Close what the reader opened itself."""
        ...


async def open_async_source(source: AsyncSource) -> AsyncReader:
    """Like ``open_source``, and for asynchronous iterables of bytes too."""
    if isinstance(source, AsyncIterable):
        return AsyncIterableReader(source)
    # Opening may read and convert a whole file.
    return ThreadedReader(await asyncio.to_thread(open_source, source))


class ThreadedReader:
    """A reader whose calls may block."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.title = reader.title
        self.media_type = reader.media_type
        self.size_bytes = reader.size_bytes

    async def read(self, size_bytes: int) -> bytes:
        """The next bytes."""
        if isinstance(self._reader, BytesReader):
            return self._reader.read(size_bytes)
        return await asyncio.to_thread(self._reader.read, size_bytes)

    async def rewind(self) -> None:
        """Begin again."""
        await asyncio.to_thread(self._reader.rewind)

    async def close(self) -> None:
        """Close what was opened."""
        self._reader.close()


class AsyncIterableReader:
    """Pieces of any size from an asynchronous iterable."""

    title = ""
    media_type = PLAIN
    size_bytes: int | None = None

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        self._pieces = pieces
        self._iterator: AsyncIterator[bytes] = aiter(pieces)
        self._rest = memoryview(b"")

    async def read(self, size_bytes: int) -> bytes:
        """The next bytes, of one piece."""
        while not self._rest:
            piece = await anext(self._iterator, None)
            if piece is None:
                return b""
            self._rest = as_bytes(piece)
        data, self._rest = bytes(self._rest[:size_bytes]), self._rest[size_bytes:]
        return data

    async def rewind(self) -> None:
        """Begin again.

        Raises:
            SourceSpent: the pieces come from an iterator.
        """
        if self._iterator is self._pieces:
            raise SourceSpent(
                "the server needs bytes from the beginning, and an iterator goes once"
            )
        self._iterator = aiter(self._pieces)
        self._rest = memoryview(b"")

    async def close(self) -> None:
        """Nothing was opened."""
