"""A fixed number of worker processes, kept running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import WorkersUnavailable
from longspan.server.metrics.role import RoleMetrics
from longspan.server.pool.backoff import Backoff
from longspan.server.pool.config import PoolConfig
from longspan.server.pool.lifecycle import Death, WorkerState
from longspan.server.pool.model_info import ModelInfo
from longspan.server.pool.sockets import SocketDirectory
from longspan.server.pool.worker import Worker, WorkerHooks

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolHooks:
    """What the pool tells its owner; called on the loop, must not block.

    Attributes:
        ready: the worker takes commands.
        answered: an event of one job came.
        died: the process is gone, whether it had been ready or not.
    """

    ready: Callable[[Worker], None]
    answered: Callable[[Worker, pb.Event], None]
    died: Callable[[Worker, Death], None]


class Pool:
    """Starts ``config.workers`` processes and replaces each that dies, with backoff.

    A worker that says its model is bad (exit status 3), or whose model is not the one the
    pool began with, is not replaced; nor is one that finds too little memory (exit status 4)
    before any was ready.

    Attributes:
        model: what the workers serve; None until the first one was ready.
        restarts: processes started in place of dead ones.
    """

    def __init__(self, config: PoolConfig, hooks: PoolHooks, metrics: RoleMetrics) -> None:
        self._config = config
        self._metrics = metrics
        self._hooks = hooks
        self._workers: dict[int, Worker] = {}
        self._failures: dict[int, Death] = {}
        self._supervisors: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()
        self._sockets: SocketDirectory | None = None
        self.model: ModelInfo | None = None
        self.restarts = 0

    @property
    def ready(self) -> bool:
        """True while any worker takes commands."""
        return any(worker.state is WorkerState.READY for worker in self._workers.values())

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [worker.pid for worker in self._workers.values() if worker.pid is not None]

    @property
    def states(self) -> Counter[str]:
        """How many processes are ready, starting, and down."""
        states = Counter(_seen(worker.state) for worker in self._workers.values())
        states["down"] += self._config.workers - states.total()
        return states

    @property
    def failure(self) -> str | None:
        """Why no worker will ever be ready again; None while one may."""
        if len(self._failures) < self._config.workers:
            return None
        return str(next(iter(self._failures.values())))

    def start(self) -> None:
        """Start the workers, without waiting for them.

        Raises:
            ConfigError: no socket can be made in the runtime directory.
        """
        self._sockets = SocketDirectory(self._config.runtime_dir)
        self._supervisors = [
            asyncio.create_task(self._supervise(slot, self._sockets), name=f"worker-{slot}")
            for slot in range(self._config.workers)
        ]

    async def wait_ready(self) -> ModelInfo:
        """Wait for the first worker; return what it serves.

        Raises:
            WorkersUnavailable: all workers failed for good.
        """
        await self._settled.wait()
        self.check()
        assert self.model is not None
        return self.model

    def check(self) -> None:
        """Let a call pass while a worker is ready or may become so.

        Raises:
            WorkersUnavailable: all workers failed for good.
        """
        if (failure := self.failure) is not None:
            raise WorkersUnavailable(failure, retry_after_s=self._config.longest_backoff_s)

    async def stop(self) -> None:
        """End all processes, gently within the grace, and remove the sockets."""
        self._stopping.set()
        for worker in self._workers.values():
            worker.stop()
        try:
            await asyncio.gather(*self._supervisors)
        finally:
            if self._sockets is not None:
                self._sockets.remove()

    async def _supervise(self, slot: int, sockets: SocketDirectory) -> None:
        backoff = self._backoff()
        clock = asyncio.get_running_loop().time
        while not self._stopping.is_set():
            started_s = clock()
            death = await self._run_one(slot, sockets)
            if self._is_final(death):
                self._fail(slot, death)
                return
            await self._pause(backoff.delay_s(clock() - started_s), death)

    async def _run_one(self, slot: int, sockets: SocketDirectory) -> Death:
        hooks = WorkerHooks(ready=self._became_ready, answered=self._hooks.answered)
        again = self._config.again(self.model) if self.model is not None else ()
        with self._metrics.meter() as meter:
            worker = Worker(slot, sockets.new_path(), self._config, hooks, meter, again=again)
            self._workers[slot] = worker
            try:
                death = await worker.run()
            finally:
                del self._workers[slot]
        if not self._stopping.is_set():
            _log.warning("%s: %s", worker.name, death)
        if self._is_final(death):
            self._failures[slot] = death
        self._hooks.died(worker, death)
        return death

    def _is_final(self, death: Death) -> bool:
        """Memory that is short comes back, where there was enough for the model once."""
        return death.final or (death.lacks_memory and self.model is None)

    def _fail(self, slot: int, death: Death) -> None:
        _log.error("worker-%d is not restarted: %s", slot, death)
        if self.failure is not None:
            self._settled.set()

    async def _pause(self, delay_s: float, death: Death) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        if not self._stopping.is_set():
            self.restarts += 1
            self._metrics.restarted(death.restart_reason)

    def _became_ready(self, worker: Worker, model: ModelInfo) -> str | None:
        if self.model is None:
            self.model = model
        elif not self.model.answers_like(model):
            return f"it serves {model}, the pool serves {self.model}"
        self.model = self.model.least(model)
        self._settled.set()
        self._hooks.ready(worker)
        return None

    def _backoff(self) -> Backoff:
        return Backoff(
            first_s=self._config.first_backoff_s,
            longest_s=self._config.longest_backoff_s,
            healthy_s=self._config.healthy_s,
        )


def _seen(state: WorkerState) -> str:
    """A process's state as those see it who wait for it."""
    return state.name.lower() if state in (WorkerState.READY, WorkerState.STARTING) else "down"
