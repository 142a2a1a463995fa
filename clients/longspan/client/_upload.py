"""What an upload sends next, given acknowledgements and breaks; pure.

              opened           accepted            committed            finished
    OPENING ─────────▶ ACCEPTING ─────▶ SENDING ───────────▶ COMMITTED ─────────▶ FINISHED
       ▲                    │              │                     │
       └────────────────────┴──────────────┴─────────────────────┘  broke

Bytes come in through ``feed`` and stay until the server has acknowledged them, so that a
broken stream goes on where the server says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from longspan.client._exceptions import LongspanError, ProtocolError, UploadMissing
from longspan.client._replay_buffer import ReplayBuffer, Supply

CHUNK_BYTES = 256 << 10
WINDOW_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Open:
    """Opens an upload, or resumes ``upload_id``."""

    upload_id: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """``data`` begins at byte ``offset`` of the document."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """The document is complete."""

    length: int
    sha256: str


Part: TypeAlias = Open | Chunk | Commit


class State(Enum):
    """Where the conversation stands."""

    OPENING = "a header is due"
    ACCEPTING = "the server says where to send from"
    SENDING = "chunks are sent"
    COMMITTED = "all is sent"
    FINISHED = "the server has confirmed"


class Move(Enum):
    """What happens to the conversation."""

    OPENED = "header sent"
    ACCEPTED = "accepted"
    ACKED = "bytes acknowledged"
    COMMITTED = "commit sent"
    FINISHED = "confirmed"
    BROKE = "stream broken"


_MOVES: Mapping[tuple[State, Move], State] = {
    (State.OPENING, Move.OPENED): State.ACCEPTING,
    (State.OPENING, Move.BROKE): State.OPENING,
    (State.ACCEPTING, Move.ACCEPTED): State.SENDING,
    (State.ACCEPTING, Move.BROKE): State.OPENING,
    (State.SENDING, Move.ACKED): State.SENDING,
    (State.SENDING, Move.COMMITTED): State.COMMITTED,
    (State.SENDING, Move.BROKE): State.OPENING,
    (State.COMMITTED, Move.ACKED): State.COMMITTED,
    (State.COMMITTED, Move.FINISHED): State.FINISHED,
    (State.COMMITTED, Move.BROKE): State.OPENING,
}


class UploadCursor:
    """One upload across all its streams.

    Args:
        chunk_bytes: bytes of a chunk at most; the server may ask for less.
        window_bytes: bytes sent and not acknowledged at most.
    """

    def __init__(self, *, chunk_bytes: int = CHUNK_BYTES, window_bytes: int = WINDOW_BYTES) -> None:
        self._chunk_bytes = chunk_bytes
        self._wanted_chunk_bytes = chunk_bytes
        self._buffer = ReplayBuffer(window_bytes)
        self._sent = 0
        self.state = State.OPENING
        self.upload_id = ""
        self.acked_bytes = 0

    @property
    def supply(self) -> Supply:
        """What is due from the source."""
        return self._buffer.supply

    @property
    def all_sent(self) -> bool:
        """Whether this stream needs nothing more."""
        return self.state in (State.COMMITTED, State.FINISHED)

    @property
    def room(self) -> int:
        """Bytes to read now; 0 while the window is full or the source has ended."""
        return min(self._buffer.room(), self._wanted_chunk_bytes)

    def feed(self, data: bytes) -> None:
        """Take at most ``room`` bytes from the source; empty at its end."""
        self._buffer.feed(data)

    def rewound(self) -> None:
        """The source begins again at its first byte."""
        self._buffer.rewound()

    def next_part(self) -> Part | None:
        """What to send now, taken as sent; None while there is nothing."""
        if self.state is State.OPENING:
            self._move(Move.OPENED)
            return Open(self.upload_id)
        if self.state is not State.SENDING or self.supply is Supply.REWINDING:
            return None
        return self._next_chunk() or self._commit_at_end()

    def accepted(self, upload_id: str, committed_bytes: int, max_chunk_bytes: int) -> None:
        """The server takes the upload and goes on at ``committed_bytes``.

        Raises:
            ProtocolError: it was not asked, or the numbers make no sense.
        """
        if committed_bytes < 0 or max_chunk_bytes < 1:
            raise ProtocolError(
                f"accepted {committed_bytes} bytes in chunks of {max_chunk_bytes} bytes"
            )
        self._move(Move.ACCEPTED)
        self._chunk_bytes = min(self._wanted_chunk_bytes, max_chunk_bytes)
        self.upload_id = upload_id
        self.acked_bytes = self._sent = committed_bytes
        self._buffer.resume(committed_bytes)

    def acked(self, committed_bytes: int) -> None:
        """Every byte before ``committed_bytes`` is safe.

        Raises:
            ProtocolError: that many bytes were not sent, or nothing was accepted.
        """
        self._move(Move.ACKED)
        if not self.acked_bytes <= committed_bytes <= self._sent:
            raise ProtocolError(
                f"acknowledged {committed_bytes} bytes after {self.acked_bytes}, "
                f"when {self._sent} were sent"
            )
        self.acked_bytes = committed_bytes
        self._buffer.release(committed_bytes)

    def finished(self) -> None:
        """The server has everything.

        Raises:
            ProtocolError: it has not.
        """
        self._move(Move.FINISHED)

    def broke(self, error: LongspanError) -> None:
        """The stream ended early; the next one resumes.

        Raises:
            UploadMissing: the server does not know an upload that was not resumed.
        """
        if isinstance(error, UploadMissing):
            if not self.upload_id:
                raise error
            # The document may be stored already: sending it again finds it by its content.
            self.upload_id = ""
        self._move(Move.BROKE)

    def _next_chunk(self) -> Chunk | None:
        data = self._buffer.slice(self._sent, self._chunk_bytes)
        if not data:
            return None
        chunk = Chunk(self._sent, data)
        self._sent += len(data)
        return chunk

    def _commit_at_end(self) -> Commit | None:
        if self.supply is not Supply.ENDED:
            return None
        self._move(Move.COMMITTED)
        return Commit(self._buffer.end, self._buffer.sha256)

    def _move(self, move: Move) -> None:
        after = _MOVES.get((self.state, move))
        if after is None:
            raise ProtocolError(f"{move.value} while {self.state.value}")
        self.state = after
