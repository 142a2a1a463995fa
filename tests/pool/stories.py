"""Sequence dispatchers over scripted decoder workers, and callers that listen to them."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.identity import Tenant
from longspan.server.pool.config import PoolConfig
from longspan.server.queue.fair_queue import QueueLimits
from longspan.server.queue.job import Priority, RequestId, Subject
from longspan.server.queue.request import RequestInfo
from longspan.server.queue.sequence import Sequence as OpenSequence
from longspan.server.queue.sequences import SequenceDispatcher
from tests.pool.harness import check_childless, until

WORKER = Path(__file__).with_name("story_worker.py")
_ids = itertools.count(1)


def story_worker(*options: str) -> Callable[[Path, int], Sequence[str]]:
    """A command factory for the scripted worker."""
    return lambda path, slot: [
        *(sys.executable, str(WORKER), "--socket", str(path)),
        *("--device", f"slot:{slot}", *options),
    ]


def stories(*options: str, workers: int = 1, window_jobs: int = 64) -> PoolConfig:
    """A pool of scripted workers that restarts quickly."""
    return PoolConfig(
        command=story_worker(*options),
        workers=workers,
        window_tokens=1 << 40,
        window_jobs=window_jobs,
        start_timeout_s=20.0,
        first_backoff_s=0.01,
        longest_backoff_s=0.02,
        stop_grace_s=2.0,
    )


def request(subject: str = "document", deadline_s: float | None = None) -> RequestInfo:
    """A request of its own id."""
    return RequestInfo(
        request_id=RequestId(f"r{next(_ids)}"),
        tenant=Tenant("a"),
        priority=Priority.NORMAL,
        tokens=100,
        subject=Subject(subject),
        deadline_s=deadline_s,
    )


def ids(*numbers: int) -> NDArray[np.uint32]:
    """Token ids."""
    return np.array(numbers, np.uint32)


async def tell(
    dispatcher: SequenceDispatcher,
    prompt: Sequence[int],
    *,
    max_tokens: int = 50,
    seed: int = 0,
    info: RequestInfo | None = None,
) -> str:
    """All that is generated behind a prompt that is known at once."""
    sampling = pb.Sampling(max_tokens=max_tokens, seed=seed)
    async with dispatcher.open(info or request(), sampling, ids(*prompt[:1])) as sequence:
        sequence.append(ids(*prompt[1:]))
        sequence.seal(ids())
        return await heard(sequence)


async def heard(sequence: OpenSequence) -> str:
    """All that is still to come."""
    text = ""
    while (part := await sequence.read()) is not None:
        text += part
    return text


@asynccontextmanager
async def telling(
    config: PoolConfig, limits: QueueLimits | None = None
) -> AsyncIterator[SequenceDispatcher]:
    """A dispatcher whose first worker is ready; idle and childless at the end."""
    dispatcher = SequenceDispatcher(config, limits or QueueLimits())
    dispatcher.start()
    try:
        await dispatcher.wait_ready()
        yield dispatcher
        assert await dispatcher.drain(5.0), dispatcher.stats()
        dispatcher.check_idle()
    finally:
        await dispatcher.stop()
    check_childless()
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
