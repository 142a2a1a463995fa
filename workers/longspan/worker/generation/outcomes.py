"""What the generation scheduler tells: progress, and exactly one end for every sequence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from longspan.worker.generation.plan import SequenceId


class FinishReason(StrEnum):
    """Why a sequence came to its end."""

    STOP = "STOP"
    LENGTH = "LENGTH"


class FailureReason(StrEnum):
    """Machine-readable causes of a refused or failed sequence."""

    DUPLICATE_JOB = "DUPLICATE_JOB"
    QUEUE_FULL = "QUEUE_FULL"
    EMPTY_PROMPT = "EMPTY_PROMPT"
    PROMPT_TOO_LONG = "PROMPT_TOO_LONG"
    PROMPT_SEALED = "PROMPT_SEALED"
    OUT_OF_PAGES = "OUT_OF_PAGES"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"


class Refused(Exception):
    """A sequence was not opened; the worker lives on.

    Attributes:
        reason: what the server branches on.
    """

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Sampled:
    """The token that a step gave a sequence, and whether it is the last one."""

    token: int
    finish: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class SequencePrefilled:
    """How many prompt tokens have their KV, and how many of them came from cached pages.

    Attributes:
        missing: tokens before the task that were computed since their pages were nowhere.
    """

    sequence_id: SequenceId
    tokens: int
    cached: int
    missing: int = 0


@dataclass(frozen=True, slots=True)
class SequenceFinished:
    """Terminal: the sequence came to its end; ``delivered`` tokens count as output.

    Attributes:
        policy: the name of its attention policy.
        frames: what it held of its pages, shared ones included.
        pages: of which it held anything.
        seen_share: see ``attention.seen``.
    """

    sequence_id: SequenceId
    reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    policy: str = "full"
    frames: int = 0
    pages: int = 0
    seen_share: float = 1.0


@dataclass(frozen=True, slots=True)
class SequenceCancelled:
    """Terminal: nothing of the sequence is left."""

    sequence_id: SequenceId


@dataclass(frozen=True, slots=True)
class SequenceFailed:
    """Terminal: the sequence cannot go on; the worker lives on."""

    sequence_id: SequenceId
    reason: FailureReason
    message: str


Ending = SequenceFinished | SequenceCancelled | SequenceFailed
Outcome = Ending | SequencePrefilled
