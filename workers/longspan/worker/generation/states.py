"""What can happen to a sequence, and when.

    OPEN ──SEAL──▶ SEALED               the prompt is complete
    SEALED ──SAMPLE──▶ DECODING         the first token, or the first after a preemption
    DECODING ──SAMPLE──▶ DECODING
    OPEN ──PREEMPT──▶ OPEN              its pages are gone, what it knew is computed again
    SEALED ──PREEMPT──▶ SEALED
    DECODING ──PREEMPT──▶ SEALED        prompt and output are read like one prompt
    OPEN, SEALED, DECODING ──DOOM──▶ DOOMED       it ends when the running step is over
    OPEN, SEALED, DECODING, DOOMED ──CANCEL──▶ CANCELLED
    OPEN, SEALED, DECODING, DOOMED ──FAIL──▶ FAILED
    SEALED, DECODING, DOOMED ──FINISH──▶ FINISHED

``MOVES`` is the whole truth; a move that is not in it raises ``IllegalMove``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class IllegalMove(Exception):
    """The caller's code asked for a move that the state does not allow."""


class SequenceState(Enum):
    """Where a sequence stands; FINISHED, CANCELLED and FAILED are terminal."""

    OPEN = auto()
    SEALED = auto()
    DECODING = auto()
    DOOMED = auto()
    FINISHED = auto()
    CANCELLED = auto()
    FAILED = auto()


class Move(Enum):
    """What can happen to a sequence."""

    SEAL = auto()
    SAMPLE = auto()
    PREEMPT = auto()
    DOOM = auto()
    FINISH = auto()
    CANCEL = auto()
    FAIL = auto()


MOVES: Mapping[tuple[SequenceState, Move], SequenceState] = {
    (SequenceState.OPEN, Move.SEAL): SequenceState.SEALED,
    (SequenceState.OPEN, Move.PREEMPT): SequenceState.OPEN,
    (SequenceState.OPEN, Move.DOOM): SequenceState.DOOMED,
    (SequenceState.OPEN, Move.CANCEL): SequenceState.CANCELLED,
    (SequenceState.OPEN, Move.FAIL): SequenceState.FAILED,
    (SequenceState.SEALED, Move.SAMPLE): SequenceState.DECODING,
    (SequenceState.SEALED, Move.PREEMPT): SequenceState.SEALED,
    (SequenceState.SEALED, Move.DOOM): SequenceState.DOOMED,
    (SequenceState.SEALED, Move.FINISH): SequenceState.FINISHED,
    (SequenceState.SEALED, Move.CANCEL): SequenceState.CANCELLED,
    (SequenceState.SEALED, Move.FAIL): SequenceState.FAILED,
    (SequenceState.DECODING, Move.SAMPLE): SequenceState.DECODING,
    (SequenceState.DECODING, Move.PREEMPT): SequenceState.SEALED,
    (SequenceState.DECODING, Move.DOOM): SequenceState.DOOMED,
    (SequenceState.DECODING, Move.FINISH): SequenceState.FINISHED,
    (SequenceState.DECODING, Move.CANCEL): SequenceState.CANCELLED,
    (SequenceState.DECODING, Move.FAIL): SequenceState.FAILED,
    (SequenceState.DOOMED, Move.FINISH): SequenceState.FINISHED,
    (SequenceState.DOOMED, Move.CANCEL): SequenceState.CANCELLED,
    (SequenceState.DOOMED, Move.FAIL): SequenceState.FAILED,
}
