"""The asyncio shell around the fair queue, the pool and the quarantine."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import (
    DeadlineExceeded,
    Draining,
    LongspanError,
    WorkersUnavailable,
)
from longspan.server.pool.config import PoolConfig
from longspan.server.pool.lifecycle import Death, DeathCause, WorkerState
from longspan.server.pool.model_info import ModelInfo
from longspan.server.pool.pool import Pool, PoolHooks
from longspan.server.pool.quarantine import Quarantine
from longspan.server.pool.worker import Worker
from longspan.server.queue.assignment import Assignment, next_assignment
from longspan.server.queue.call import Call
from longspan.server.queue.fair_queue import FairQueue, QueueLimits
from longspan.server.queue.job import Job, JobId, RequestId, Subject
from longspan.server.queue.positions import Positions
from longspan.server.queue.request import RequestInfo
from longspan.server.queue.stats import DispatcherStats, InFlight
from longspan.server.queue.window import Window
from longspan.server.queue.wire import answered_job, cancel_command, encode_command, text_bytes

_log = logging.getLogger(__name__)

DRAIN_RETRY_S = 1.0


class Dispatcher:
    """Feeds the workers from the fair queue; every ``encode`` call ends exactly once.

    A job is always in one of three places: in the queue, in one worker's window, or gone.
    ``_calls`` has it in the first two; when its caller has gone while it was in a window,
    it stays there until the worker lets go of it. Bound to the running loop.

    Args:
        health_changed: called with True when the first worker becomes ready and with
            False when the last one is gone.
    """

    def __init__(
        self,
        config: PoolConfig,
        limits: QueueLimits,
        *,
        quarantine: Quarantine | None = None,
        health_changed: Callable[[bool], None] | None = None,
    ) -> None:
        self._config = config
        self._queue = FairQueue(limits)
        self._quarantine = quarantine or Quarantine()
        hooks = PoolHooks(ready=self._ready, answered=self._answered, died=self._died)
        self._pool = Pool(config, hooks)
        self._health_changed = health_changed
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._calls: dict[JobId, Call] = {}
        self._waiting = 0
        self._windows: dict[Worker, Window] = {}
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._positions = Positions(self._request_order)
        self._healthy = False

    @property
    def ready(self) -> bool:
        """True while any worker takes jobs."""
        return self._pool.ready

    @property
    def model(self) -> ModelInfo | None:
        """What the workers serve; None until the first one was ready."""
        return self._pool.model

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return self._pool.pids

    def start(self) -> None:
        """Start the workers; does not wait for them.

        Raises:
            ConfigError: no socket can be made in the runtime directory.
        """
        self._pool.start()

    async def wait_ready(self) -> ModelInfo:
        """Wait for the first worker; return what it serves.

        Raises:
            WorkersUnavailable: all workers failed for good.
        """
        return await self._pool.wait_ready()

    async def drain(self, timeout_s: float) -> bool:
        """Take no new work; wait for the old. False when the time was too short."""
        self._draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Fail what still waits with ``Draining``, then end the workers."""
        self._draining = True
        self._fail_all(lambda: Draining("the server stops", retry_after_s=DRAIN_RETRY_S))
        await self._pool.stop()

    async def encode(
        self,
        texts: Sequence[NDArray[np.uint32]],
        *,
        request: RequestInfo,
        max_wait_ms: int,
    ) -> NDArray[np.float32]:
        """Embed texts as one job; unit vectors ``[texts, dimension]``, read-only.

        A job whose worker dies is sent again and counted in ``request.stats.retries``.
        Cancelling the caller takes the job out of the queue or tells the worker, and
        waits for neither.

        Args:
            texts: token ids without special tokens, ``uint32``, one array a text.
            max_wait_ms: how long the worker may wait for others to fill a batch.

        Raises:
            ValueError: more texts or tokens than one job may hold, or none.
            QueueFull: too much waits already.
            DeadlineExceeded: ``request.deadline_s`` passed.
            DocumentQuarantined: the document killed a worker twice.
            EncodeFailed: the worker refused the job.
            WorkersUnavailable: all workers failed for good.
            Draining: the server stops.
        """
        call = self._admit(text_bytes(texts), request, max_wait_ms)
        try:
            async with asyncio.timeout_at(request.deadline_s):
                return await call.result
        except TimeoutError:
            raise _deadline_error(call.job) from None
        finally:
            self._forget(call)

    def check(self, subject: Subject) -> None:
        """Let a subject pass whose jobs would be taken now.

        Raises:
            Draining, WorkersUnavailable: no jobs are taken.
            DocumentQuarantined: none of this subject.
        """
        if self._draining:
            raise Draining("the server takes no new work", retry_after_s=DRAIN_RETRY_S)
        self._pool.check()
        error = self._quarantine.error(subject, self._loop.time())
        if error is not None:
            raise error

    def quarantine(self, subject: Subject) -> None:
        """Refuse jobs of a subject known to be guilty under another name."""
        self._quarantine.lock_up(subject, self._loop.time())

    def position(self, request_id: RequestId) -> int | None:
        """Jobs ahead of the request's first queued one; None when none is queued."""
        waits = any(
            call.request.request_id == request_id and job_id in self._queue
            for job_id, call in self._calls.items()
        )
        return self._positions.of(request_id, self._loop.time()) if waits else None

    def stats(self) -> DispatcherStats:
        """A snapshot for metrics and leak checks."""
        return DispatcherStats(
            queued_jobs=len(self._queue),
            queued_tokens=self._queue.tokens,
            in_flight=tuple(
                InFlight(worker.name, len(window.jobs), window.tokens)
                for worker, window in self._windows.items()
            ),
            waiting=self._waiting,
            jobs=len(self._calls),
            restarts=self._pool.restarts,
        )

    def check_idle(self) -> None:
        """Raise AssertionError when anything is queued, in flight or waited for."""
        stats = self.stats()
        if not stats.idle:
            raise AssertionError(f"not idle: {stats}")

    def _admit(self, texts: tuple[bytes, ...], request: RequestInfo, max_wait_ms: int) -> Call:
        now = self._loop.time()
        self.check(request.subject)
        job = Job(
            job_id=JobId(next(self._ids)),
            request_id=request.request_id,
            tenant=request.tenant,
            priority=request.priority,
            request_tokens=request.tokens,
            cost_tokens=max(1, sum(map(len, texts)) // 4),
            deadline_s=request.deadline_s,
        )
        self._queue.push(job, now)
        call = Call(job, texts, max_wait_ms, request, self._loop.create_future())
        self._calls[job.job_id] = call
        self._waiting += 1
        self._idle.clear()
        self._pump()
        return call

    def _forget(self, call: Call) -> None:
        """The caller has its answer or has gone."""
        call.close()
        self._waiting -= 1
        job_id = call.job.job_id
        holder = next(
            (worker for worker, window in self._windows.items() if job_id in window), None
        )
        if holder is None:
            self._queue.remove(job_id)
            self._drop(job_id)
        elif holder.state is WorkerState.READY:
            holder.send(cancel_command(job_id))
        self._mark_idle()

    def _drop(self, job_id: JobId) -> None:
        """The job is nowhere any more."""
        self._calls.pop(job_id, None)
        self._quarantine.cleared(job_id)
        self._mark_idle()

    def _mark_idle(self) -> None:
        if not self._calls and not self._waiting:
            self._idle.set()

    def _fail(self, call: Call, error: LongspanError) -> None:
        """Answer with an error; the caller's own task then forgets the job."""
        call.fail(error)
        self._queue.remove(call.job.job_id)

    def _fail_all(self, error: Callable[[], LongspanError]) -> None:
        for call in list(self._calls.values()):
            self._fail(call, error())

    def _pump(self) -> None:
        """Move jobs from the queue into the windows while both have some."""
        now = self._loop.time()
        for job in self._queue.expire(now):
            self._fail(self._calls[job.job_id], _deadline_error(job))
        ready = {
            worker: window
            for worker, window in self._windows.items()
            if worker.state is WorkerState.READY
        }
        suspects = self._quarantine.suspects
        while (found := next_assignment(self._queue, ready, suspects, now)) is not None:
            worker, assignment = found
            self._give(worker, assignment)

    def _give(self, worker: Worker, assignment: Assignment) -> None:
        job, alone = assignment
        self._windows[worker].add(job, alone=alone)
        call = self._calls[job.job_id]
        # Nothing may join a job that runs alone, so there is nothing to wait for.
        max_wait_ms = 0 if alone else call.max_wait_ms
        worker.send(encode_command(job.job_id, call.texts, max_wait_ms))

    def _ready(self, worker: Worker) -> None:
        self._windows[worker] = Window(self._config.window_tokens, self._config.window_jobs)
        self._report_health()
        self._pump()

    def _answered(self, worker: Worker, event: pb.Event) -> None:
        job_id = answered_job(event)
        if not self._windows[worker].release(job_id):
            _log.warning("%s answered job %d, which it does not have", worker.name, job_id)
            return
        call = self._calls[job_id]
        self._drop(job_id)
        assert self._pool.model is not None
        call.settle(event, self._pool.model.dimension)
        self._pump()

    def _died(self, worker: Worker, death: Death) -> None:
        window = self._windows.pop(worker, None)
        if window is not None:
            if death.cause is not DeathCause.STOPPED:
                self._strike(window, worker.running)
            for job_id in reversed(list(window.jobs)):
                self._give_back(self._calls[job_id])
        if (failure := self._pool.failure) is not None:
            retry_after_s = self._config.longest_backoff_s
            self._fail_all(lambda: WorkersUnavailable(failure, retry_after_s=retry_after_s))
        self._report_health()
        self._pump()

    def _strike(self, window: Window, running: Sequence[int]) -> None:
        """Accuse what ran; fail all that waits for a document found guilty."""
        now = self._loop.time()
        in_flight = {job_id: self._calls[job_id].request.subject for job_id in window.jobs}
        guilty = self._quarantine.struck(in_flight, {JobId(job_id) for job_id in running}, now)
        for call in list(self._calls.values()) if guilty else ():
            subject = call.request.subject
            error = self._quarantine.error(subject, now) if subject in guilty else None
            if error is not None:
                self._fail(call, error)

    def _give_back(self, call: Call) -> None:
        """Queue a job again whose worker died, unless nobody waits for it."""
        if not call.waits:
            self._drop(call.job.job_id)
            return
        call.request.stats.retries += 1
        self._queue.push_front(call.job)

    def _report_health(self) -> None:
        if self._healthy == self.ready:
            return
        self._healthy = self.ready
        if self._health_changed is not None:
            self._health_changed(self._healthy)

    def _request_order(self) -> Iterator[RequestId]:
        return (self._calls[job_id].request.request_id for job_id in self._queue.order())


def _deadline_error(job: Job) -> DeadlineExceeded:
    return DeadlineExceeded(f"the deadline of request {job.request_id} passed")
