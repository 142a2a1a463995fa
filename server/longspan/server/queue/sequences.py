"""The asyncio shell between callers that generate text and the decoder workers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import DeadlineExceeded
from longspan.server.identity import Tenant
from longspan.server.metrics.role import RoleMetrics
from longspan.server.pool.config import PoolConfig
from longspan.server.pool.lifecycle import Death, WorkerState
from longspan.server.pool.quarantine import Quarantine
from longspan.server.pool.worker import Worker
from longspan.server.queue.assignment import Assignment
from longspan.server.queue.base import BaseDispatcher
from longspan.server.queue.fair_queue import QueueLimits
from longspan.server.queue.homes import Homes
from longspan.server.queue.job import Job, JobId, Subject
from longspan.server.queue.placement import next_placement
from longspan.server.queue.prompt import Prompt
from longspan.server.queue.questions import Questions
from longspan.server.queue.request import RequestInfo
from longspan.server.queue.sequence import Feed, Sequence
from longspan.server.queue.sequence_wire import (
    MESSAGE_TOKENS,
    append_command,
    end_of,
    open_command,
    rename_command,
)
from longspan.server.queue.window import Window
from longspan.server.queue.wire import cancel_command

_log = logging.getLogger(__name__)


PATIENCE_S = 1.0
"""How long a sequence that waits for its client keeps its place in the window."""


class SequenceDispatcher(BaseDispatcher[Sequence]):
    """Feeds decoder workers; every sequence ends exactly once.

    A worker is sent the prompt as it grows. When it dies, the next one is sent the prompt
    so far and the tokens that came, and goes on behind them: the caller sees a pause.
    """

    def __init__(
        self,
        config: PoolConfig,
        limits: QueueLimits,
        *,
        quarantine: Quarantine | None = None,
        health_changed: Callable[[bool], None] | None = None,
        metrics: RoleMetrics | None = None,
    ) -> None:
        super().__init__(
            config,
            limits,
            quarantine=quarantine,
            health_changed=health_changed,
            metrics=metrics,
        )
        self._homes: Homes[Worker] = Homes()
        self._became_ready: Callable[[Worker], None] = _no_matter_who
        self._left_over: Callable[[Tenant, Subject], None] = _no_matter_what
        self.questions = Questions()

    @property
    def workers(self) -> list[Worker]:
        """Those that are ready."""
        return list(self._windows)

    def watch(
        self, ready: Callable[[Worker], None], left_over: Callable[[Tenant, Subject], None]
    ) -> None:
        """Be told what matters to whoever looks after what workers keep.

        Args:
            ready: a worker has become ready.
            left_over: a sequence ended whose pages were forgotten while it ran.
        """
        self._became_ready, self._left_over = ready, left_over

    def forgotten(self, tenant: Tenant, subject: Subject) -> None:
        """A subject's pages are being dropped: what runs on it will leave further ones."""
        for work in self._works.values():
            if (work.request.tenant, work.kept_as) == (tenant, subject):
                work.forgotten = True

    @asynccontextmanager
    async def open(
        self,
        request: RequestInfo,
        sampling: pb.Sampling,
        prefix: NDArray[np.uint32],
        *,
        task_tokens: int = 0,
        attention: str | None = None,
    ) -> AsyncIterator[Sequence]:
        """A sequence that begins with ``prefix``; cancelled when the block is left early.

        ``task_tokens`` is how many tokens will seal it; ``attention`` names one of the model's
        policies, None the default.

        Raises:
            PromptTooLong: the model does not even read the prefix and the task.
            QueueFull: too much waits already.
            DocumentQuarantined: the document killed workers.
            WorkersUnavailable: all workers failed for good.
            Draining: the server stops.
        """
        self.check(request.subject)
        assert self.model is not None, "wait_ready comes first"
        # Named to the worker even where it is the default, as a replay must have the same.
        policy = self.model.policy(attention)
        context = self.model.context(policy)
        prompt = Prompt(context, task_tokens=task_tokens)
        prompt.append(prefix)
        job = self._job(request, max(1, min(request.tokens, context)))
        sequence = Sequence(job, request, sampling, prompt, policy, self._grew)
        self._admit(sequence)
        try:
            yield sequence
        finally:
            self._forget(sequence)

    def known_as(self, sequence: Sequence, subject: Subject) -> None:
        """The document has another name from now on, under which it will be asked for again.

        Raises:
            DocumentQuarantined: it killed workers, under either name.
        """
        if self._quarantine.error(sequence.document, self._loop.time()) is not None:
            self.quarantine(subject)
        self.check(subject)
        sequence.document = sequence.kept_as = subject
        worker = self._holder(sequence.job.job_id)
        if worker is not None:
            self._homes.settle(sequence.pages, worker)
            if worker.state is WorkerState.READY:
                worker.send(rename_command(sequence.job, subject))

    def probation(self) -> list[JobId]:
        """Sequences on a worker that may not get another beside them yet."""
        windows = self._windows.values()
        return [window.exclusive for window in windows if window.exclusive is not None]

    def _next(
        self, windows: Mapping[Worker, Window], now: float
    ) -> tuple[Worker, Assignment] | None:
        suspects = self._quarantine.suspects
        return next_placement(self._queue, windows, suspects, self._home, now)

    def _home(self, job: Job) -> Worker | None:
        return self._homes.of(self._works[job.job_id].pages)

    def _give(self, worker: Worker, work: Sequence, *, alone: bool) -> None:
        prompt = work.prompt
        given = min(len(prompt), MESSAGE_TOKENS)
        work.feed = Feed(given, sealed=prompt.ends_at(given), due_s=self._loop.time())
        self._homes.settle(work.pages, worker)
        command = open_command(
            work.job,
            work.sampling,
            prompt,
            given=given,
            attention=work.attention,
            subject=work.kept_as,
            delivered=work.output.ids,
            now=self._loop.time(),
            trace=work.waiting.given(worker.name),
        )
        worker.send(command)
        self._feed_more(worker, work)
        self._rest(worker, work)

    def _grew(self, sequence: Sequence) -> None:
        worker = self._holder(sequence.job.job_id)
        if worker is not None and worker.state is WorkerState.READY:
            self._feed_more(worker, sequence)

    def _feed_more(self, worker: Worker, sequence: Sequence) -> None:
        """Queue an Append for what the worker does not have, unless one waits already."""
        feed = sequence.feed
        assert feed is not None
        if feed.waiting or feed.sealed or not _behind(feed, sequence.prompt):
            return
        feed.waiting = True
        worker.send(partial(self._append, worker, sequence, feed))

    def _append(self, worker: Worker, sequence: Sequence, feed: Feed) -> pb.ExecuteRequest | None:
        """Make the Append that waited, with all that has come meanwhile."""
        feed.waiting = False
        if sequence.feed is not feed or not sequence.waits:
            return None
        if feed.idle:
            feed.due_s = self._loop.time()
        prompt, start = sequence.prompt, feed.tokens
        feed.tokens = min(len(prompt), start + MESSAGE_TOKENS)
        feed.sealed = prompt.ends_at(feed.tokens)
        command = append_command(sequence.job, prompt, start=start, end=feed.tokens)
        self._windows[worker].resume(sequence.job.job_id)
        self._rest(worker, sequence)
        self._grew(sequence)
        return command

    def _answered(self, worker: Worker, work: Sequence, event: pb.Event) -> None:
        if event.HasField("prefilled"):
            self._prefilled(worker, work, event.prefilled)
        elif event.HasField("generated"):
            self._generated(worker, work, event.generated)
        elif (end := end_of(event, work.sampling)) is not None:
            self._ended(worker, work.job.job_id)
            work.output.end(end)
            self._pump()

    def _prefilled(self, worker: Worker, sequence: Sequence, event: pb.Prefilled) -> None:
        length = len(sequence.prompt)
        sequence.prefilled = max(sequence.prefilled, min(event.tokens, length))
        sequence.cached = max(sequence.cached, min(event.cached, length))
        sequence.missing = max(sequence.missing, min(event.missing, length))
        if sequence.feed is not None:
            sequence.feed.prefilled = event.tokens
            self._rest(worker, sequence)
        self._reached(worker, sequence, event.tokens)

    def _rest(self, worker: Worker, sequence: Sequence) -> None:
        """Watch a sequence that waits for its client, unless it is watched already."""
        feed = sequence.feed
        if feed is not None and feed.idle and not feed.watched:
            feed.watched = True
            self._loop.call_later(PATIENCE_S, self._pause, worker, sequence, feed, feed.tokens)

    def _pause(self, worker: Worker, sequence: Sequence, feed: Feed, tokens: int) -> None:
        """Let others have the place of a sequence whose client has said nothing meanwhile."""
        feed.watched = False
        if sequence.feed is not feed or not feed.idle or worker not in self._windows:
            return
        if feed.tokens > tokens:
            self._rest(worker, sequence)
        elif self._windows[worker].pause(sequence.job.job_id):
            self._pump()

    def _generated(self, worker: Worker, sequence: Sequence, event: pb.Generated) -> None:
        output = sequence.output
        if not output.add(event.first, event.tokens, event.text, self._loop.time()):
            if sequence.waits:
                _log.warning("%s sent tokens from %d, out of order", worker.name, event.first)
            return
        if output.crowded:
            self._fail(sequence, DeadlineExceeded("the answer waits, and nobody reads it"))
            worker.send(cancel_command(sequence.job.job_id))
        self._reached(worker, sequence, len(sequence.prompt) + output.tokens)

    def _reached(self, worker: Worker, sequence: Sequence, tokens: int) -> None:
        if sequence.reached(tokens):
            self._clear(worker, sequence.job.job_id)

    def _clear(self, worker: Worker, job_id: JobId) -> None:
        """The suspect has got beyond the place where its worker died."""
        self._quarantine.cleared(job_id)
        self._windows[worker].relieve(job_id)
        self._pump()

    def _unbegun(self) -> Iterator[tuple[JobId, float]]:
        """Those in the queue, and those that their worker has not come to."""
        yield from super()._unbegun()
        for job_id in (job_id for window in self._windows.values() for job_id in window.jobs):
            work = self._works[job_id]
            if work.waits and work.feed is not None and work.feed.unbegun:
                yield job_id, work.feed.due_s

    def _lost(self, work: Sequence, worker: Worker) -> None:
        work.waiting.lost(worker.name)
        if not work.lost():
            self._quarantine.cleared(work.job.job_id)

    def _ready(self, worker: Worker) -> None:
        super()._ready(worker)
        self._became_ready(worker)

    def _heard(self, worker: Worker, event: pb.Event) -> None:
        if not self.questions.heard(worker, event):
            super()._heard(worker, event)

    def _drop(self, job_id: JobId) -> None:
        work = self._works.get(job_id)
        super()._drop(job_id)
        if work is not None and work.forgotten:
            self._left_over(work.request.tenant, work.kept_as)

    def _died(self, worker: Worker, death: Death) -> None:
        self._homes.lose(worker)
        self.questions.lose(worker)
        super()._died(worker, death)


def _no_matter_who(worker: Worker) -> None:
    return


def _no_matter_what(tenant: Tenant, subject: Subject) -> None:
    return


def _behind(feed: Feed, prompt: Prompt) -> bool:
    return feed.tokens < len(prompt) or (prompt.sealed and not feed.sealed)
