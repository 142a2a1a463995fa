"""What every dispatcher does: a fair queue before a pool, with quarantine, drain and health."""

from __future__ import annotations

import asyncio
import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import (
    Draining,
    LongspanError,
    WorkersUnavailable,
)
from longspan.server.metrics.metrics import Metrics
from longspan.server.metrics.role import RoleMetrics
from longspan.server.pool.config import PoolConfig
from longspan.server.pool.lifecycle import Death, DeathCause, WorkerState
from longspan.server.pool.model_info import ModelInfo
from longspan.server.pool.pool import Pool, PoolHooks
from longspan.server.pool.quarantine import CRASH, KILL, Quarantine
from longspan.server.pool.worker import Worker
from longspan.server.queue.assignment import Assignment
from longspan.server.queue.fair_queue import FairQueue, QueueLimits
from longspan.server.queue.job import Job, JobId, RequestId, Subject, deadline_error
from longspan.server.queue.positions import Positions
from longspan.server.queue.request import RequestInfo
from longspan.server.queue.stats import DispatcherStats, InFlight
from longspan.server.queue.window import Window
from longspan.server.queue.wire import cancel_command

_log = logging.getLogger(__name__)

DRAIN_RETRY_S = 1.0


class Work(Protocol):
    """One job with its payload and the caller that waits, or waited, for it."""

    @property
    def job(self) -> Job: ...
    @property
    def request(self) -> RequestInfo: ...
    @property
    def subject(self) -> Subject:
        """What is quarantined when it kills workers now."""
        ...

    @property
    def waits(self) -> bool:
        """True while the caller has no end and has not gone."""
        ...

    def fail(self, error: LongspanError) -> None:
        """End with an error, unless it has ended."""
        ...

    def close(self) -> None:
        """The caller looks no more."""
        ...


W = TypeVar("W", bound=Work)


class BaseDispatcher(ABC, Generic[W]):
    """Feeds the workers from the fair queue; every caller gets exactly one end.

    A job is always in one of three places: in the queue, in one worker's window, or gone.
    ``_works`` has it in the first two; when its caller has gone while it was in a window,
    it stays there until the worker lets go of it. Bound to the running loop.

    Args:
        health_changed: called with True when the first worker becomes ready and with
            False when the last one is gone.
        metrics: of the role; None: nobody looks at them.
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
        self._config = config
        self._queue = FairQueue(limits)
        self._quarantine = quarantine or Quarantine()
        hooks = PoolHooks(ready=self._ready, answered=self._heard, died=self._died)
        self._pool = Pool(config, hooks, metrics or Metrics().encoder)
        self._health_changed = health_changed
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._works: dict[JobId, W] = {}
        self._queued_s: dict[JobId, float] = {}
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
            work.request.request_id == request_id and job_id in self._queue
            for job_id, work in self._works.items()
        )
        return self._positions.of(request_id, self._loop.time()) if waits else None

    def stats(self) -> DispatcherStats:
        """A snapshot for metrics and leak checks."""
        now = self._loop.time()
        unbegun = dict(self._unbegun())
        return DispatcherStats(
            queued_jobs=len(self._queue),
            queued_tokens=self._queue.tokens,
            in_flight=tuple(
                InFlight(worker.name, len(window.jobs), window.tokens, worker.used_pages)
                for worker, window in self._windows.items()
            ),
            waiting=self._waiting,
            jobs=len(self._works),
            restarts=self._pool.restarts,
            unbegun_jobs=len(unbegun),
            unbegun_tokens=sum(self._works[job_id].job.cost_tokens for job_id in unbegun),
            oldest_age_s=now - min(unbegun.values(), default=now),
            workers=self._pool.states,
        )

    def check_idle(self) -> None:
        """Raise AssertionError when anything is queued, in flight or waited for."""
        stats = self.stats()
        if not stats.idle:
            raise AssertionError(f"not idle: {stats}")

    @abstractmethod
    def _next(
        self, windows: Mapping[Worker, Window], now: float
    ) -> tuple[Worker, Assignment] | None:
        """Take the next job from the queue and name its worker; None when nothing can go."""

    @abstractmethod
    def _give(self, worker: Worker, work: W, *, alone: bool) -> None:
        """Send one job to a worker that has just got it into its window."""

    @abstractmethod
    def _answered(self, worker: Worker, work: W, event: pb.Event) -> None:
        """An event of a job that the worker has came."""

    def _unbegun(self) -> Iterator[tuple[JobId, float]]:
        """Jobs of which nothing has been computed, and since when they wait."""
        return ((one, since) for one, since in self._queued_s.items() if one in self._queue)

    def _lost(self, work: W, worker: Worker) -> None:
        """The worker of a job died; it is queued again if anybody waits for it."""

    def _job(self, request: RequestInfo, cost_tokens: int) -> Job:
        return Job(
            job_id=JobId(next(self._ids)),
            request_id=request.request_id,
            tenant=request.tenant,
            priority=request.priority,
            request_tokens=request.tokens,
            cost_tokens=cost_tokens,
            deadline_s=request.deadline_s,
        )

    def _admit(self, work: W) -> None:
        """Queue a job whose caller begins to wait."""
        now = self._loop.time()
        self._queue.push(work.job, now)
        self._works[work.job.job_id] = work
        self._queued_s[work.job.job_id] = now
        self._waiting += 1
        self._idle.clear()
        self._pump()

    def _forget(self, work: W) -> None:
        """The caller has its end or has gone."""
        work.close()
        self._waiting -= 1
        job_id = work.job.job_id
        holder = self._holder(job_id)
        if holder is None:
            self._queue.remove(job_id)
            self._drop(job_id)
        elif holder.state is WorkerState.READY:
            holder.send(cancel_command(job_id))
        self._mark_idle()

    def _holder(self, job_id: JobId) -> Worker | None:
        return next((worker for worker, window in self._windows.items() if job_id in window), None)

    def _ended(self, worker: Worker, job_id: JobId) -> None:
        """The worker has let go of a job that it had."""
        self._windows[worker].release(job_id)
        self._drop(job_id)

    def _drop(self, job_id: JobId) -> None:
        """The job is nowhere any more."""
        self._works.pop(job_id, None)
        self._queued_s.pop(job_id, None)
        self._quarantine.cleared(job_id)
        self._mark_idle()

    def _mark_idle(self) -> None:
        if not self._works and not self._waiting:
            self._idle.set()

    def _fail(self, work: W, error: LongspanError) -> None:
        """Answer with an error; the caller's own task then forgets the job."""
        work.fail(error)
        self._queue.remove(work.job.job_id)

    def _fail_all(self, error: Callable[[], LongspanError]) -> None:
        for work in list(self._works.values()):
            self._fail(work, error())

    def _pump(self) -> None:
        """Move jobs from the queue into the windows while both have some."""
        now = self._loop.time()
        for job in self._queue.expire(now):
            self._fail(self._works[job.job_id], deadline_error(job))
        ready = {
            worker: window
            for worker, window in self._windows.items()
            if worker.state is WorkerState.READY
        }
        while (found := self._next(ready, now)) is not None:
            worker, (job, alone) = found
            self._windows[worker].add(job, alone=alone)
            self._give(worker, self._works[job.job_id], alone=alone)

    def _ready(self, worker: Worker) -> None:
        config = self._config
        self._windows[worker] = Window(config.window_tokens, config.window_jobs, config.held_jobs)
        self._report_health()
        self._pump()

    def _heard(self, worker: Worker, event: pb.Event) -> None:
        job_id = _job_of(event)
        if job_id not in self._windows[worker]:
            _log.warning("%s spoke of job %d, which it does not have", worker.name, job_id)
            return
        self._answered(worker, self._works[job_id], event)

    def _died(self, worker: Worker, death: Death) -> None:
        window = self._windows.pop(worker, None)
        if window is not None:
            if death.cause is not DeathCause.STOPPED:
                self._strike(window, worker.running, death)
            for job_id in reversed(list(window.jobs)):
                self._give_back(self._works[job_id], worker)
        if (failure := self._pool.failure) is not None:
            retry_after_s = self._config.longest_backoff_s
            self._fail_all(lambda: WorkersUnavailable(failure, retry_after_s=retry_after_s))
        self._report_health()
        self._pump()

    def _strike(self, window: Window, running: Sequence[int], death: Death) -> None:
        """Accuse what ran; fail all that waits for a document found guilty."""
        now = self._loop.time()
        in_flight = {job_id: self._works[job_id].subject for job_id in window.jobs}
        named = {JobId(job_id) for job_id in running}
        # A worker names what it runs before it runs it: silent without a name, it ran nothing.
        unnamed = death.cause is DeathCause.SILENT and not named & in_flight.keys()
        weight = KILL if death.by_hand or unnamed else CRASH
        guilty = self._quarantine.struck(in_flight, named, now, weight=weight)
        for work in list(self._works.values()) if guilty else ():
            error = self._quarantine.error(work.subject, now) if work.subject in guilty else None
            if error is not None:
                self._fail(work, error)

    def _give_back(self, work: W, worker: Worker) -> None:
        """Queue a job again whose worker died, unless nobody waits for it."""
        if not work.waits:
            self._drop(work.job.job_id)
            return
        work.request.stats.retries += 1
        self._lost(work, worker)
        self._queue.push_front(work.job)
        self._queued_s[work.job.job_id] = self._loop.time()

    def _report_health(self) -> None:
        if self._healthy == self.ready:
            return
        self._healthy = self.ready
        if self._health_changed is not None:
            self._health_changed(self._healthy)

    def _request_order(self) -> Iterator[RequestId]:
        return (self._works[job_id].request.request_id for job_id in self._queue.order())


def _job_of(event: pb.Event) -> JobId:
    kind = event.WhichOneof("kind")
    return JobId(getattr(event, kind).job_id if kind is not None else 0)
