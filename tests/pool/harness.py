"""Dispatchers over real worker processes, and a check that nothing is left behind."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from longspan.server.identity import Tenant
from longspan.server.pool.config import PoolConfig
from longspan.server.queue.dispatcher import Dispatcher
from longspan.server.queue.fair_queue import QueueLimits
from longspan.server.queue.job import Priority, RequestId, Subject
from longspan.server.queue.request import RequestInfo
from longspan.server.queue.sequences import SequenceDispatcher
from tests.pool.hash_worker import DIMENSION, vector

WORKER = Path(__file__).with_name("hash_worker.py")
_ids = itertools.count(1)


def hash_worker(*options: str) -> Callable[[Path, int], Sequence[str]]:
    """A command factory for the hashing worker."""
    return lambda path, slot: [sys.executable, str(WORKER), "--socket", str(path), *options]


def config(
    *options: str,
    workers: int = 1,
    window_tokens: int = 100,
    heartbeat_timeout_s: float = 3.0,
    step_timeout_s: float = 60.0,
    start_timeout_s: float = 20.0,
) -> PoolConfig:
    """A pool of hashing workers that restarts quickly."""
    return PoolConfig(
        command=hash_worker(*options),
        workers=workers,
        window_tokens=window_tokens,
        heartbeat_timeout_s=heartbeat_timeout_s,
        step_timeout_s=step_timeout_s,
        start_timeout_s=start_timeout_s,
        first_backoff_s=0.01,
        stop_grace_s=2.0,
    )


def request(
    subject: str = "document", tenant: str = "a", deadline_s: float | None = None
) -> RequestInfo:
    """A request of its own id."""
    return RequestInfo(
        request_id=RequestId(f"r{next(_ids)}"),
        tenant=Tenant(tenant),
        priority=Priority.NORMAL,
        tokens=100,
        subject=Subject(subject),
        deadline_s=deadline_s,
    )


def text(*ids: int) -> NDArray[np.uint32]:
    """Token ids."""
    return np.array(ids, dtype=np.uint32)


def expected(*texts: NDArray[np.uint32]) -> NDArray[np.float32]:
    """What an undisturbed worker answers, computed without one."""
    raw = b"".join(vector(ids.astype("<u4").tobytes()) for ids in texts)
    return np.frombuffer(raw, dtype="<f4").reshape(len(texts), DIMENSION)


async def encode(
    dispatcher: Dispatcher, *texts: NDArray[np.uint32], info: RequestInfo, wait_ms: int = 0
) -> NDArray[np.float32]:
    """One job."""
    return await dispatcher.encode(texts, request=info, max_wait_ms=wait_ms)


@asynccontextmanager
async def running(
    config: PoolConfig, limits: QueueLimits | None = None
) -> AsyncIterator[Dispatcher]:
    """A dispatcher whose first worker is ready; idle and childless at the end."""
    dispatcher = Dispatcher(config, limits or QueueLimits())
    dispatcher.start()
    try:
        await dispatcher.wait_ready()
        yield dispatcher
        assert await dispatcher.drain(5.0), dispatcher.stats()
        dispatcher.check_idle()
    finally:
        await dispatcher.stop()
    check_childless()
    # A call that was cancelled while it connected takes a moment to end.
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


def check_childless() -> None:
    """Assert that this process has no child process but the tests' template."""
    children = psutil.Process().children(recursive=True)
    assert [one for one in children if "longspan.worker.template" not in one.cmdline()] == []


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (conditions of several processes)
            await asyncio.sleep(0.005)


def send_signal(dispatcher: Dispatcher | SequenceDispatcher, number: signal.Signals) -> None:
    """Signal every worker."""
    for pid in dispatcher.pids:
        os.kill(pid, number)
