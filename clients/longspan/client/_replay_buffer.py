"""The bytes of a source that the server may still ask for.

source   ──────────────────────────▶
         |  acknowledged  |  kept  |  not read yet
         0              start     end
                          ◀window▶
"""

from __future__ import annotations

import hashlib
from enum import Enum


class Supply(Enum):
    """What is due from the source."""

    READING = "more bytes"
    REWINDING = "all bytes again, from the first"
    ENDED = "nothing"


class ReplayBuffer:
    """Keeps at most a window of bytes and hashes every byte once.

    Args:
        window_bytes: bytes kept at most.
    """

    def __init__(self, window_bytes: int) -> None:
        self._window_bytes = window_bytes
        self._kept = bytearray()
        self._floor = 0
        self.supply = Supply.READING
        self._start_reading()

    @property
    def end(self) -> int:
        """How many bytes were read."""
        return self._read_bytes

    @property
    def start(self) -> int:
        """Offset of the first byte kept."""
        return self._read_bytes - len(self._kept)

    @property
    def sha256(self) -> str:
        """Lower-case hexadecimal digest of the bytes read."""
        return self._hash.hexdigest()

    def room(self) -> int:
        """Bytes that may be read now."""
        return self._window_bytes - len(self._kept) if self.supply is Supply.READING else 0

    def feed(self, data: bytes) -> None:
        """Take what the source gave; empty at its end.

        A read that was under way when a rewind became due is dropped: it is read again.
        """
        if self.supply is Supply.REWINDING:
            return
        assert self.supply is Supply.READING
        assert len(data) <= self.room()
        if not data:
            self.supply = Supply.ENDED
            return
        self._hash.update(data)
        self._read_bytes += len(data)
        self._kept += data
        self._drop()

    def slice(self, offset: int, size_bytes: int) -> bytes:
        """At most ``size_bytes`` kept bytes from ``offset``; empty when it is not read yet."""
        at = max(offset - self.start, 0)
        return bytes(memoryview(self._kept)[at : at + size_bytes])

    def release(self, offset: int) -> None:
        """Bytes before ``offset`` will not be asked for again."""
        self._floor = offset
        self._drop()

    def resume(self, offset: int) -> None:
        """The server goes on at ``offset``, which may lie before ``start``."""
        self._floor = offset
        if offset >= self.start and self.supply is not Supply.REWINDING:
            self._drop()
        else:
            self.supply = Supply.REWINDING

    def rewound(self) -> None:
        """The source begins again."""
        assert self.supply is Supply.REWINDING
        self.supply = Supply.READING
        self._start_reading()

    def _start_reading(self) -> None:
        self._hash = hashlib.sha256()
        self._read_bytes = 0
        self._kept.clear()

    def _drop(self) -> None:
        del self._kept[: max(self._floor - self.start, 0)]
