"""The life of one upload, without any I/O.

    Receiving ──Chunk──▶ Receiving          the chunk follows, or repeats bytes kept earlier
    Receiving ──Commit─▶ Verifying          length agrees; the digest is to be compared
    Receiving ──Ended──▶ Suspended          no commit: resumable, nothing is lost
    Verifying ──Matched──▶ Stored
    Verifying ──Mismatched──▶ Discarded
    Verifying ──Ended──▶ Suspended          the stream broke while verifying

``MOVES`` is the whole truth; a move that is not in it raises ``IllegalMove``. User
mistakes (a gap, a wrong length) raise errors of the error tree and leave the state as
it was, so the upload stays resumable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from longspan.server.errors import (
    ChunkOutOfOrder,
    ChunkTooLarge,
    DocumentTooLarge,
    EmptyDocument,
    InvalidRequest,
    LengthMismatch,
)
from longspan.server.limits import Limits


class IllegalMove(Exception):
    """The caller's code sent an event that the state does not take."""


@dataclass(frozen=True, slots=True)
class Receiving:
    """Bytes before ``received`` are kept; ``declared`` is the promised length, if any."""

    received: int
    declared: int | None


@dataclass(frozen=True, slots=True)
class Verifying:
    """All bytes are here; their digest must equal ``sha256``."""

    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Suspended:
    """The stream ended early; a later one goes on at ``received``."""

    received: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The document is complete and verified."""

    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Discarded:
    """The bytes are not what the client hashed."""


State = Receiving | Verifying | Suspended | Stored | Discarded


@dataclass(frozen=True, slots=True)
class Chunk:
    """``size`` bytes for position ``offset`` have come."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The client says the document is complete."""

    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream is over, cleanly or not: the two look the same."""


@dataclass(frozen=True, slots=True)
class Matched:
    """The digest agrees."""


@dataclass(frozen=True, slots=True)
class Mismatched:
    """The digest differs."""


Event = Chunk | Commit | Ended | Matched | Mismatched


@dataclass(frozen=True, slots=True)
class Append:
    """Effect: write the chunk's bytes at the end of the spool."""


@dataclass(frozen=True, slots=True)
class Compare:
    """Effect: the chunk repeats bytes kept earlier; they must be the same."""

    offset: int


@dataclass(frozen=True, slots=True)
class Nothing:
    """No effect."""


Effect = Append | Compare | Nothing
Move = tuple[State, Effect]


def _chunk(state: Receiving, event: Chunk, limits: Limits) -> Move:
    end = event.offset + event.size
    if event.size == 0 or event.offset < 0:
        raise InvalidRequest("a chunk needs data and a position", field="chunk")
    if event.size > limits.chunk_bytes:
        raise ChunkTooLarge(
            f"chunk of {event.size} bytes; at most {limits.chunk_bytes}", field="chunk.data"
        )
    if end <= state.received:
        return state, Compare(event.offset)
    if event.offset != state.received:
        raise ChunkOutOfOrder(expected=state.received, actual=event.offset)
    check_length(end, limits)
    if state.declared is not None and end > state.declared:
        raise LengthMismatch(
            f"{end} bytes sent, {state.declared} declared", field="header.declared_bytes"
        )
    return Receiving(end, state.declared), Append()


def _commit(state: Receiving, event: Commit, limits: Limits) -> Move:
    if state.received == 0 and event.length == 0:
        raise EmptyDocument("the document is empty", field="commit.length")
    if event.length != state.received:
        raise LengthMismatch(
            f"commit says {event.length} bytes, {state.received} received", field="commit.length"
        )
    if state.declared is not None and event.length != state.declared:
        raise LengthMismatch(
            f"commit says {event.length} bytes, {state.declared} declared", field="commit.length"
        )
    if len(event.sha256) != 64 or set(event.sha256) - set("0123456789abcdef"):
        raise InvalidRequest("not a lower-case hexadecimal SHA-256", field="commit.sha256")
    return Verifying(event.length, event.sha256), Nothing()


def _ended_receiving(state: Receiving, event: Ended, limits: Limits) -> Move:
    return Suspended(state.received), Nothing()


def _ended_verifying(state: Verifying, event: Ended, limits: Limits) -> Move:
    return Suspended(state.length), Nothing()


def _matched(state: Verifying, event: Matched, limits: Limits) -> Move:
    return Stored(state.length, state.sha256), Nothing()


def _mismatched(state: Verifying, event: Mismatched, limits: Limits) -> Move:
    return Discarded(), Nothing()


Handler = Callable[[Any, Any, Limits], Move]
MOVES: Mapping[type[State], Mapping[type[Event], Handler]] = {
    Receiving: {Chunk: _chunk, Commit: _commit, Ended: _ended_receiving},
    Verifying: {Matched: _matched, Mismatched: _mismatched, Ended: _ended_verifying},
    Suspended: {},
    Stored: {},
    Discarded: {},
}


def check_length(length: int, limits: Limits) -> None:
    """Raise DocumentTooLarge for a length over the limit."""
    if length > limits.document_bytes:
        raise DocumentTooLarge(
            f"{length} bytes; a document has at most {limits.document_bytes}",
            field="header.declared_bytes",
        )


class Upload:
    """One upload's state, moved by ``handle`` alone.

    Attributes:
        state: where it stands; carries that state's data.
    """

    def __init__(self, *, received: int, declared: int | None, limits: Limits) -> None:
        self._limits = limits
        self.state: State = Receiving(received, declared)

    def handle(self, event: Event) -> Effect:
        """Apply one event; return what the shell must do.

        Raises:
            IllegalMove: the state does not take this event.
            LongspanError: the client broke a rule; the state is unchanged.
        """
        handler = MOVES[type(self.state)].get(type(event))
        if handler is None:
            raise IllegalMove(f"{type(event).__name__} in {type(self.state).__name__}")
        self.state, effect = handler(self.state, event, self._limits)
        return effect
