"""The asyncio shell between callers that embed texts and the encoder workers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.pool.worker import Worker
from longspan.server.queue.assignment import Assignment, next_assignment
from longspan.server.queue.base import BaseDispatcher
from longspan.server.queue.call import Call
from longspan.server.queue.job import deadline_error
from longspan.server.queue.request import RequestInfo
from longspan.server.queue.window import Window
from longspan.server.queue.wire import encode_command, text_bytes


class Dispatcher(BaseDispatcher[Call]):
    """Feeds encoder workers; every ``encode`` call ends exactly once."""

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
            DocumentQuarantined: the document killed workers.
            EncodeFailed: the worker refused the job.
            WorkersUnavailable: all workers failed for good.
            Draining: the server stops.
        """
        call = self._call(text_bytes(texts), request, max_wait_ms)
        try:
            async with asyncio.timeout_at(request.deadline_s):
                return await call.result
        except TimeoutError:
            raise deadline_error(call.job) from None
        finally:
            self._forget(call)

    def _call(self, texts: tuple[bytes, ...], request: RequestInfo, max_wait_ms: int) -> Call:
        self.check(request.subject)
        job = self._job(request, max(1, sum(map(len, texts)) // 4))
        call = Call(job, texts, max_wait_ms, request, self._loop.create_future())
        self._admit(call)
        return call

    def _next(
        self, windows: Mapping[Worker, Window], now: float
    ) -> tuple[Worker, Assignment] | None:
        return next_assignment(self._queue, windows, self._quarantine.suspects, now)

    def _give(self, worker: Worker, work: Call, *, alone: bool) -> None:
        # Nothing may join a job that runs alone, so there is nothing to wait for.
        max_wait_ms = 0 if alone else work.max_wait_ms
        worker.send(encode_command(work.job.job_id, work.texts, max_wait_ms))

    def _answered(self, worker: Worker, work: Call, event: pb.Event) -> None:
        self._ended(worker, work.job.job_id)
        assert self._pool.model is not None
        work.settle(event, self._pool.model.dimension)
        self._pump()
