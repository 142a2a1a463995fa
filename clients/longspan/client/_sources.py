"""Where a document's bytes come from."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias, cast

from longspan.client._exceptions import SourceSpent
from longspan.client._readers import PLAIN, kind_of

Source: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | Iterable[bytes]
AsyncSource: TypeAlias = Source | AsyncIterable[bytes]


class Reader(Protocol):
    """Reads a source once, or again from its beginning."""

    title: str
    media_type: str
    size_bytes: int | None

    def read(self, size_bytes: int) -> bytes:
        """The next bytes, at most so many; empty at the end."""
        ...

    def rewind(self) -> None:
        """Begin again.

        Raises:
            SourceSpent: it cannot.
        """
        ...

    def close(self) -> None:
        """Close what the reader opened itself."""
        ...


def open_source(source: Source) -> Reader:
    """A reader for a path, bytes, a binary file or an iterable of bytes.

    Raises:
        OSError: the file cannot be opened.
        UnsupportedFile: it is of a kind that is not read.
        TypeError: the source is of none of these types.
    """
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return BytesReader(bytes(source))
    if hasattr(source, "read"):
        return FileReader(cast(BinaryIO, source))
    if isinstance(source, Iterable):
        return IterableReader(source)
    raise TypeError(f"not a path, bytes, a binary file or an iterable: {type(source).__name__}")


def _open_path(path: Path) -> Reader:
    kind = kind_of(path)
    if kind.convert is not None:
        data = kind.convert(path.read_bytes())
        return BytesReader(data, title=path.name, media_type=kind.media_type)
    return OpenedFile(path, kind.media_type)


class BytesReader:
    """Bytes in memory."""

    def __init__(self, data: bytes, *, title: str = "", media_type: str = PLAIN) -> None:
        self.title = title
        self.media_type = media_type
        self.size_bytes: int | None = len(data)
        self._data = memoryview(data)
        self._at = 0

    def read(self, size_bytes: int) -> bytes:
        """The next bytes."""
        piece = bytes(self._data[self._at : self._at + size_bytes])
        self._at += len(piece)
        return piece

    def rewind(self) -> None:
        """Begin again."""
        self._at = 0

    def close(self) -> None:
        """Nothing was opened."""


class FileReader:
    """A binary file object of the caller's, from where it stands; left open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = file.tell() if file.seekable() else None
        name = getattr(file, "name", "")
        self.title = Path(name).name if isinstance(name, str) else ""
        self.media_type = PLAIN
        self.size_bytes = None if self._start is None else self._measure(self._start)

    def read(self, size_bytes: int) -> bytes:
        """The next bytes.

        Raises:
            TypeError: the file was opened in text mode.
        """
        read = getattr(self._file, "read1", self._file.read)
        data = read(size_bytes)
        if not isinstance(data, bytes):
            raise TypeError(f"the file gives {type(data).__name__}, not bytes: open it as 'rb'")
        return data

    def rewind(self) -> None:
        """Begin again.

        Raises:
            SourceSpent: the file cannot seek.
        """
        if self._start is None:
            raise _spent("the file cannot seek")
        self._file.seek(self._start)

    def close(self) -> None:
        """The file is the caller's."""

    def _measure(self, start: int) -> int:
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(start)
        return end - start


class OpenedFile(FileReader):
    """A file opened here."""

    def __init__(self, path: Path, media_type: str) -> None:
        super().__init__(path.open("rb"))
        self.title = path.name
        self.media_type = media_type

    def close(self) -> None:
        """Close it."""
        self._file.close()


class IterableReader:
    """Pieces of any size; an iterator goes once, a list any number of times."""

    title = ""
    media_type = PLAIN
    size_bytes: int | None = None

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self._iterator: Iterator[bytes] = iter(pieces)
        self._rest = memoryview(b"")

    def read(self, size_bytes: int) -> bytes:
        """The next bytes, of one piece."""
        while not self._rest:
            piece = next(self._iterator, None)
            if piece is None:
                return b""
            self._rest = as_bytes(piece)
        data, self._rest = bytes(self._rest[:size_bytes]), self._rest[size_bytes:]
        return data

    def rewind(self) -> None:
        """Begin again.

        Raises:
            SourceSpent: the pieces come from an iterator.
        """
        if self._iterator is self._pieces:
            raise _spent("an iterator goes once")
        self._iterator = iter(self._pieces)
        self._rest = memoryview(b"")

    def close(self) -> None:
        """Nothing was opened."""


def as_bytes(piece: object) -> memoryview:
    """A piece of an iterable.

    Raises:
        TypeError: it is not bytes.
    """
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise TypeError(f"the source gives {type(piece).__name__}, not bytes")
    return memoryview(piece).cast("B")


def _spent(why: str) -> SourceSpent:
    return SourceSpent(f"the server needs bytes from the beginning, and {why}")
