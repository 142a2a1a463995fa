"""One worker process, from its start to its death."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.metrics.worker_meter import WorkerMeter
from longspan.server.pool.channel import Command, CommandStream
from longspan.server.pool.config import MOST_QUESTIONS, PoolConfig
from longspan.server.pool.lifecycle import Death, DeathCause, WorkerState, moved
from longspan.server.pool.model_info import ModelInfo
from longspan.server.pool.process import ChildProcess
from longspan.server.pool.watchdog import Watchdog

_log = logging.getLogger(__name__)

# What a dying process may still have to say: its last events, and its exit status.
LAST_WORDS_S = 0.5


@dataclass(frozen=True, slots=True)
class WorkerHooks:
    """What a worker tells its owner; called on the loop, must not block.

    Attributes:
        ready: it takes commands from now on. Returns why it is refused, or None.
        answered: an event of one job came.
    """

    ready: Callable[[Worker, ModelInfo], str | None]
    answered: Callable[[Worker, pb.Event], None]


class Worker:
    """One process and its stream; ``run`` is its whole life and is called once.

    ``again`` is added to the configured command line; ``meter`` hears what it tells of itself.

    Attributes:
        state: see ``lifecycle``.
        running: jobs of the step that ran at the last heartbeat.
        used_pages: KV pages that sequences held at the last heartbeat.
    """

    def __init__(
        self,
        slot: int,
        path: Path,
        config: PoolConfig,
        hooks: WorkerHooks,
        meter: WorkerMeter,
        *,
        again: Sequence[str] = (),
    ) -> None:
        self.name = f"worker-{slot}"
        self._slot = slot
        self.state = WorkerState.STARTING
        self.running: Sequence[int] = ()
        self.used_pages = 0
        self.pid: int | None = None
        self._path = path
        self._config = config
        self._hooks = hooks
        self._meter = meter
        self._was_ready = False
        self._again = again
        # At most four commands wait for each job that is held, and as many for jobs that left
        # while theirs still waited.
        self._stream = CommandStream(path, commands=8 * config.held_jobs + MOST_QUESTIONS)
        self._stop = asyncio.Event()
        self._refusal: str | None = None

    def send(self, command: Command) -> None:
        """Queue a command for a READY worker."""
        assert self.state is WorkerState.READY
        self._stream.send(command)

    def stop(self) -> None:
        """Ask the process to end; ``run`` returns when it has."""
        self._stop.set()

    async def run(self) -> Death:
        """Start the process, serve until it dies by any of the three signals, clean up."""
        argv = [*self._config.command(self._path, self._slot), *self._again]
        try:
            process = await ChildProcess.start(argv, self.name)
        except OSError as error:
            self.state = moved(self.state, WorkerState.DRAINING)
            return self._end(DeathCause.EXITED, None, f"cannot execute {argv[0]}: {error}")
        self.pid = process.pid
        cause = DeathCause.STOPPED
        try:
            cause = await self._live(process)
            if cause is DeathCause.STOPPED:
                await self._shut_down(process)
        finally:
            status, detail = await process.reap()
            await self._stream.close()
            self._path.unlink(missing_ok=True)
        return self._end(cause, status, self._refusal or detail)

    async def _live(self, process: ChildProcess) -> DeathCause:
        """Wait for the first sign of death, or the order to stop."""
        watchdog = self._watchdog(asyncio.get_running_loop().time())
        exited = asyncio.create_task(process.wait())
        reading = asyncio.create_task(self._read(watchdog))
        watching = asyncio.create_task(_watch(watchdog))
        stopping = asyncio.create_task(self._stop.wait())
        tasks = (exited, reading, watching, stopping)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            was_ready = self.state is WorkerState.READY
            self.state = moved(self.state, WorkerState.DRAINING)
            if stopping.done():
                return DeathCause.STOPPED
            if watching.done():
                return watching.result()
            if self._refusal is None and (was_ready or reading.done()):
                await asyncio.wait((exited, reading), timeout=LAST_WORDS_S)
            return self._cause(exited.done())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _cause(self, exited: bool) -> DeathCause:
        if self._refusal is not None:
            return DeathCause.REFUSED
        return DeathCause.EXITED if exited else DeathCause.STREAM_ENDED

    async def _read(self, watchdog: Watchdog) -> None:
        try:
            async for event in self._stream.events():
                self._handle(event, watchdog)
                if self._refusal is not None:
                    return
        except grpc.aio.AioRpcError as error:
            _log.info("%s: stream ended: %s", self.name, error.details())
        except Exception:
            # The edge of an RPC: whatever a hook makes of an event, it costs one worker.
            _log.exception("%s: event not handled", self.name)

    def _handle(self, event: pb.Event, watchdog: Watchdog) -> None:
        now = asyncio.get_running_loop().time()
        kind = event.WhichOneof("kind")
        if kind == "ready":
            watchdog.ready(now)
            self._become_ready(ModelInfo.of(event.ready))
        elif self.state is WorkerState.STARTING:
            self._refusal = f"its first event was {kind}, not ready"
        elif kind == "heartbeat":
            self.running = tuple(event.heartbeat.running)
            self.used_pages = event.heartbeat.used_pages
            self._meter.heard(event.heartbeat)
            watchdog.heard(now, step=event.heartbeat.step, busy=event.heartbeat.busy)
        else:
            self._hooks.answered(self, event)

    def _become_ready(self, model: ModelInfo) -> None:
        self.state = moved(self.state, WorkerState.READY)
        self._was_ready = True
        self._refusal = self._hooks.ready(self, model)

    async def _shut_down(self, process: ChildProcess) -> None:
        await self._stream.close()
        process.terminate()
        await process.exits_within(self._config.stop_grace_s)

    def _end(self, cause: DeathCause, status: int | None, detail: str) -> Death:
        death = Death(cause, status, detail, self._was_ready)
        self.state = moved(self.state, WorkerState.FAILED if death.final else WorkerState.DEAD)
        return death

    def _watchdog(self, now: float) -> Watchdog:
        return Watchdog(
            start_timeout_s=self._config.start_timeout_s,
            heartbeat_timeout_s=self._config.heartbeat_timeout_s,
            step_timeout_s=self._config.step_timeout_s,
            now=now,
        )


async def _watch(watchdog: Watchdog) -> DeathCause:
    while True:
        await asyncio.sleep(watchdog.interval_s)
        verdict = watchdog.tick(asyncio.get_running_loop().time())
        if verdict is not None:
            return verdict
