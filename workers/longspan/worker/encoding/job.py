"""One encode job and the moves it can make.

    WAITING ──TAKEN──▶ RUNNING          some of its texts are in the running step
    RUNNING ──TAKEN──▶ RUNNING          more of its texts join the same step
    RUNNING ──RETURNED──▶ WAITING       the step is over, texts remain
    RUNNING ──COMPLETED──▶ ENCODED      the step is over, no text remains
    WAITING ──CANCEL──▶ CANCELLED
    RUNNING ──CANCEL──▶ DOOMED          the step cannot be interrupted
    DOOMED ──CANCEL──▶ DOOMED
    DOOMED ──RETURNED/COMPLETED──▶ CANCELLED

``MOVES`` is the whole truth; a move that is not in it raises ``IllegalMove``. A job that
fails never becomes a ``Job``: it is refused at admission.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import NewType

JobId = NewType("JobId", int)

TOKEN_BYTES = 4
SPECIAL_TOKENS = 2


class IllegalMove(Exception):
    """The caller's code asked for a move that the state does not allow."""


class JobState(Enum):
    """Where a job stands; ENCODED and CANCELLED are terminal."""

    WAITING = auto()
    RUNNING = auto()
    DOOMED = auto()
    ENCODED = auto()
    CANCELLED = auto()


class Move(Enum):
    """What can happen to a job."""

    TAKEN = auto()
    RETURNED = auto()
    COMPLETED = auto()
    CANCEL = auto()


MOVES: Mapping[tuple[JobState, Move], JobState] = {
    (JobState.WAITING, Move.TAKEN): JobState.RUNNING,
    (JobState.WAITING, Move.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, Move.TAKEN): JobState.RUNNING,
    (JobState.RUNNING, Move.RETURNED): JobState.WAITING,
    (JobState.RUNNING, Move.COMPLETED): JobState.ENCODED,
    (JobState.RUNNING, Move.CANCEL): JobState.DOOMED,
    (JobState.DOOMED, Move.CANCEL): JobState.DOOMED,
    (JobState.DOOMED, Move.RETURNED): JobState.CANCELLED,
    (JobState.DOOMED, Move.COMPLETED): JobState.CANCELLED,
}


def text_tokens(text: bytes) -> int:
    """Length of a text in tokens, special tokens included."""
    return len(text) // TOKEN_BYTES + SPECIAL_TOKENS


class Job:
    """Texts to encode, taken in order over one or more steps.

    Attributes:
        job_id: the stream's name for it.
        texts: token ids without special tokens, little-endian uint32.
        deadline_s: when its texts have waited enough, in the scheduler's time.
        state: moved by ``move`` alone.
        vectors: one little-endian float32 row per text encoded so far, in order.
        waiting_tokens: tokens that no step has taken yet, special tokens included.
    """

    def __init__(self, job_id: JobId, texts: Sequence[bytes], deadline_s: float) -> None:
        assert texts, "admission refuses empty jobs"
        self.job_id = job_id
        self.texts = tuple(texts)
        self.deadline_s = deadline_s
        self.state = JobState.WAITING
        self.vectors: list[bytes] = []
        self.waiting_tokens = sum(map(text_tokens, self.texts))
        self._taken = 0

    def move(self, move: Move) -> None:
        """Apply one move.

        Raises:
            IllegalMove: the state does not allow it.
        """
        target = MOVES.get((self.state, move))
        if target is None:
            raise IllegalMove(f"{move.name} in {self.state.name}")
        self.state = target

    @property
    def remaining(self) -> Sequence[bytes]:
        """Texts that no step has taken yet."""
        return self.texts[self._taken :]

    def take(self) -> bytes:
        """Hand the next text to the step that is being planned."""
        text = self.texts[self._taken]
        self.move(Move.TAKEN)
        self._taken += 1
        self.waiting_tokens -= text_tokens(text)
        return text

    def settle(self) -> None:
        """Leave the finished step: to wait again, or to end."""
        complete = len(self.vectors) == len(self.texts)
        self.move(Move.COMPLETED if complete else Move.RETURNED)
