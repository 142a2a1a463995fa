"""Questions to workers that are no jobs, and their answers."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.pool.config import MOST_QUESTIONS
from longspan.server.pool.lifecycle import WorkerState
from longspan.server.pool.worker import Worker

Question = Callable[[int], pb.ExecuteRequest]
"""Makes the command from the id under which it is answered."""

ANSWERS = frozenset({"holdings", "forgotten", "verified"})


class Questions:
    """Bounded: of a worker that does not answer so many wait, and no more are sent."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[Worker, asyncio.Future[pb.Event | None]]] = {}
        self._unsent: Counter[Worker] = Counter()

    async def ask(self, worker: Worker, question: Question, timeout_s: float) -> pb.Event | None:
        """A worker's answer; None where it gives none in time, dies, or has too many to answer."""
        if worker.state is not WorkerState.READY or self._unsent[worker] >= MOST_QUESTIONS:
            return None
        request_id = next(self._ids)
        answer: asyncio.Future[pb.Event | None] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = worker, answer
        self._unsent[worker] += 1
        worker.send(lambda: self._made(worker, request_id, question))
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(request_id, None)

    def heard(self, worker: Worker, event: pb.Event) -> bool:
        """Take an answer; False where the event is none. One that came too late is dropped."""
        kind = event.WhichOneof("kind")
        if kind not in ANSWERS:
            return False
        asked, answer = self._waiting.get(getattr(event, kind).request_id, (None, None))
        if answer is not None and asked is worker and not answer.done():
            answer.set_result(event)
        return True

    def lose(self, worker: Worker) -> None:
        """A worker is gone, and will not answer."""
        self._unsent.pop(worker, None)
        for asked, answer in self._waiting.values():
            if asked is worker and not answer.done():
                answer.set_result(None)

    def _made(
        self, worker: Worker, request_id: int, question: Question
    ) -> pb.ExecuteRequest | None:
        """The command, when its turn to be written comes; None where nobody waits any more."""
        self._unsent[worker] -= 1
        return question(request_id) if request_id in self._waiting else None
