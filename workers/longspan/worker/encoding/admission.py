"""Which encode commands become jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from longspan.worker.encoding.job import TOKEN_BYTES, JobId, text_tokens
from longspan.worker.encoding.scheduler import Scheduler
from longspan.worker.limits import VECTORS_BYTES, WAITING_JOBS, WAITING_TOKENS

FLOAT_BYTES = 4


class Reason(StrEnum):
    """Machine-readable causes of a refused job."""

    TEXT_TOO_LONG = "TEXT_TOO_LONG"
    BAD_TOKEN = "BAD_TOKEN"
    EMPTY_JOB = "EMPTY_JOB"
    EMPTY_TEXT = "EMPTY_TEXT"
    DUPLICATE_JOB = "DUPLICATE_JOB"
    JOB_TOO_LARGE = "JOB_TOO_LARGE"
    QUEUE_FULL = "QUEUE_FULL"


class JobRefused(Exception):
    """The job was not taken; the worker lives on.

    Attributes:
        reason: what the server branches on.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TextRules:
    """What the model reads.

    Attributes:
        max_tokens: largest text, special tokens included.
        vocabulary: ids are below it.
        dimension: floats of one vector.
    """

    max_tokens: int
    vocabulary: int
    dimension: int

    @property
    def max_texts(self) -> int:
        """Most texts of one job."""
        return VECTORS_BYTES // (self.dimension * FLOAT_BYTES)

    def check(self, texts: Sequence[bytes]) -> None:
        """Check a job's texts: token ids without special tokens, little-endian uint32.

        Raises:
            JobRefused: the job cannot be encoded.
        """
        if not texts:
            raise JobRefused(Reason.EMPTY_JOB, "the job has no texts")
        if len(texts) > self.max_texts:
            message = f"{len(texts)} texts; a job has at most {self.max_texts}"
            raise JobRefused(Reason.JOB_TOO_LARGE, message)
        for index, text in enumerate(texts):
            self._check_text(index, text)

    def _check_text(self, index: int, text: bytes) -> None:
        if not text:
            raise JobRefused(Reason.EMPTY_TEXT, f"text {index} has no tokens")
        if len(text) % TOKEN_BYTES:
            message = f"text {index}: {len(text)} bytes is no whole number of uint32"
            raise JobRefused(Reason.BAD_TOKEN, message)
        if text_tokens(text) > self.max_tokens:
            message = f"text {index} has {text_tokens(text)} tokens with the special ones; "
            raise JobRefused(Reason.TEXT_TOO_LONG, f"{message}at most {self.max_tokens}")
        largest = int(np.frombuffer(text, "<u4").max())
        if largest >= self.vocabulary:
            message = f"text {index}: token {largest}, the vocabulary has {self.vocabulary}"
            raise JobRefused(Reason.BAD_TOKEN, message)


def check_room(scheduler: Scheduler, job_id: JobId) -> None:
    """Check that a stream may open one more job under this id.

    Raises:
        JobRefused: the id is in use, or the stream has as much waiting as is kept.
    """
    if job_id in scheduler:
        raise JobRefused(Reason.DUPLICATE_JOB, f"job {job_id} waits or runs already")
    if scheduler.jobs >= WAITING_JOBS or scheduler.waiting_tokens >= WAITING_TOKENS:
        raise JobRefused(Reason.QUEUE_FULL, f"{scheduler.jobs} jobs are open")
