"""One sequence: a prompt that may still be growing, and what a decoder makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import LongspanError, PromptTooLong
from longspan.server.queue.homes import Pages
from longspan.server.queue.job import Job, Subject, deadline_error
from longspan.server.queue.output import Output
from longspan.server.queue.prompt import Prompt
from longspan.server.queue.request import RequestInfo
from longspan.server.queue.waiting_span import WaitingSpan

PAGE_TOKENS = 256
"""Tokens of a worker's KV page."""


@dataclass(slots=True, eq=False)
class Feed:
    """What the worker that has the sequence now was sent of its prompt.

    Attributes:
        tokens: of the prompt.
        sealed: it knows that no more will come.
        waiting: an Append waits to be written; what comes meanwhile goes with it.
        prefilled: tokens that this worker says it has read.
        watched: somebody will look whether its client has gone on.
        due_s: since when the worker could read something.
    """

    tokens: int
    sealed: bool
    waiting: bool = False
    prefilled: int = 0
    watched: bool = False
    due_s: float = 0.0

    @property
    def readable(self) -> int:
        """Tokens that the worker reads before it gets more.

        It keeps back the last one while more may follow, and under some attention policies
        all behind the last whole page.
        """
        if self.sealed:
            return self.tokens
        kept = max(self.tokens - 1, 0)
        return kept - kept % PAGE_TOKENS if kept > PAGE_TOKENS else kept

    @property
    def idle(self) -> bool:
        """True while the worker has nothing to do for it."""
        return not self.sealed and self.prefilled >= self.readable

    @property
    def unbegun(self) -> bool:
        """True while the worker has read nothing, and could."""
        return not self.prefilled and not self.idle


class Sequence:
    """A job with its payload and its caller; lives through the deaths of its workers.

    Attributes:
        document: what is quarantined when reading it kills workers.
        kept_as: whose KV pages a worker computes; empty where nobody asks.
        forgotten: those pages were dropped meanwhile, and must be again at the end.
        prefilled: tokens of the prompt that a decoder has read, and
        cached: those of them that it found in its pages, and
        missing: those before the task that were found nowhere; all only grow.
        furthest: tokens read and generated when a worker was furthest.
        feed: None while no worker has it.
        waiting: its time in the queue, as a trace has it.

    Args:
        attention: name of the policy that it is read under, on whichever worker.
        grew: called when there is more of the prompt.
    """

    def __init__(
        self,
        job: Job,
        request: RequestInfo,
        sampling: pb.Sampling,
        prompt: Prompt,
        attention: str,
        grew: Callable[[Sequence], None],
    ) -> None:
        self.job = job
        self.request = request
        self.sampling = sampling
        self.prompt = prompt
        self.attention = attention
        self.document = request.subject
        self.kept_as = request.kept_as
        self.forgotten = False
        self.output = Output()
        self.waiting = WaitingSpan()
        self.feed: Feed | None = None
        self.prefilled = 0
        self.cached = 0
        self.missing = 0
        self.furthest = 0
        self._target: int | None = None
        self._grew = grew
        self._left = False

    def append(self, ids: NDArray[np.uint32]) -> None:
        """Add tokens to the prompt.

        Raises:
            PromptTooLong: the model reads fewer.
            LongspanError: the sequence has failed.
        """
        self._extend(self.prompt.append, ids)

    def seal(self, ids: NDArray[np.uint32]) -> None:
        """Add the last tokens; generation begins when all are read.

        Raises:
            PromptTooLong: the model reads fewer.
            LongspanError: the sequence has failed.
        """
        self._extend(self.prompt.seal, ids)

    async def read(self) -> str | None:
        """All text that waits, as soon as there is some; None at the end.

        Raises:
            LongspanError: the sequence failed.
        """
        try:
            async with asyncio.timeout_at(self.request.deadline_s):
                return await self.output.read()
        except TimeoutError:
            raise deadline_error(self.job) from None

    @property
    def subject(self) -> Subject:
        """The document until it has been read; then the question and its answer."""
        if self.prompt.sealed and self.furthest >= self.prompt.task_start:
            return Subject(self.request.request_id)
        return self.document

    @property
    def pages(self) -> Pages:
        """Those by which it finds the worker that read the document before."""
        return Pages(self.document, self.attention)

    @property
    def waits(self) -> bool:
        """True while the caller has no end and has not gone."""
        return not self._left and not self.output.ended

    def fail(self, error: LongspanError) -> None:
        """End with an error, unless it has ended."""
        self.output.end(error)

    def close(self) -> None:
        """The caller looks no more."""
        self._left = True
        self.waiting.left()

    def reached(self, tokens: int) -> bool:
        """A worker has read and made so many tokens; True when that clears the sequence."""
        self.furthest = max(self.furthest, tokens)
        cleared = self._target is not None and tokens >= self._target
        if cleared:
            self._target = None
        return cleared

    def lost(self) -> bool:
        """The worker died; a next one clears the sequence when it gets further.

        Returns:
            False where there is nothing to get to: the sequence had asked for no work.
        """
        assert self.feed is not None
        # One that waited for more of its prompt had got as far as it could.
        bound = self.furthest + 1 if self.feed.sealed else self.feed.readable
        self._target = min(self.furthest + 1, bound) or None
        self.feed = None
        return self._target is not None

    def _extend(
        self, extend: Callable[[NDArray[np.uint32]], None], ids: NDArray[np.uint32]
    ) -> None:
        self.output.check()
        try:
            extend(ids)
        except PromptTooLong as error:
            self.fail(error)
            raise
        self._grew(self)
