"""What the workers keep of documents, for those who want to know, check or clear it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import WorkersUnavailable
from longspan.server.identity import Tenant
from longspan.server.kv.holdings import Held, TierStats, by_subject, together, total
from longspan.server.kv.keeper import forget, inventory
from longspan.server.pool.worker import Worker
from longspan.server.queue.job import Subject
from longspan.server.queue.questions import Question
from longspan.server.queue.sequences import SequenceDispatcher

GLANCE_S = 1.0
"""How long a list of documents waits for workers to say what they have."""

STATS_S = 5.0
FORGET_S = 30.0
VERIFY_S = 3600.0
RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What one worker tells of itself; None where it did not in time."""

    name: str
    tiers: TierStats | None


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What all workers keep.

    Attributes:
        tiers: of those that answered, together.
        held: of one tenant.
    """

    tiers: TierStats
    workers: tuple[WorkerStats, ...]
    held: Held


class KvCache:
    """Asks the workers; keeps nothing itself."""

    def __init__(self, dispatcher: SequenceDispatcher) -> None:
        self._dispatcher = dispatcher
        self._verifying = asyncio.Lock()

    async def holdings(
        self, tenant: Tenant, subjects: Sequence[Subject]
    ) -> Mapping[Subject, Held] | None:
        """Where the pages of some of a tenant's subjects lie; None where a worker does not answer.

        Args:
            subjects: at least one.
        """
        assert subjects, "none would mean all"
        answers = (await self._ask_all(inventory(tenant, subjects), GLANCE_S)).values()
        told = [answer.holdings for answer in answers if answer is not None]
        return by_subject(told, tenant) if told and len(told) == len(answers) else None

    async def stats(self, tenant: Tenant) -> CacheStats:
        """What is kept, and what was done with it."""
        answers = await self._ask_all(inventory(tenant), STATS_S)
        told = [answer.holdings for answer in answers.values() if answer is not None]
        workers = tuple(
            WorkerStats(worker.name, TierStats.of(answer.holdings.stats) if answer else None)
            for worker, answer in answers.items()
        )
        tiers = together([worker.tiers for worker in workers if worker.tiers is not None])
        return CacheStats(tiers, workers, total(by_subject(told, tenant).values()))

    async def verify(self) -> pb.Verified:
        """Read all pages on disk and remove damaged ones.

        All workers share the disk, so one of them reads it: the first that answers.

        Raises:
            WorkersUnavailable: none does.
        """
        async with self._verifying:
            for worker in self._dispatcher.workers:
                answer = await self._ask(worker, _verify, VERIFY_S)
                if answer is not None:
                    return answer.verified
        raise WorkersUnavailable("no worker of the decoder answers", retry_after_s=RETRY_S)

    async def clear(self, tenant: Tenant) -> pb.Forgotten:
        """Drop all that is kept of a tenant.

        One worker after the other: they free the same disk, and each tells what it freed.

        Raises:
            WorkersUnavailable: a worker does not answer, or none is there; some may have cleared.
        """
        cleared = pb.Forgotten()
        workers = self._dispatcher.workers
        for worker in workers:
            answer = await self._ask(worker, forget(tenant, Subject("")), FORGET_S)
            if answer is None:
                break
            cleared.pool_pages += answer.forgotten.pool_pages
            cleared.disk_pages += answer.forgotten.disk_pages
            cleared.disk_bytes += answer.forgotten.disk_bytes
        else:
            if workers:
                return cleared
        raise WorkersUnavailable("a worker of the decoder does not answer", retry_after_s=RETRY_S)

    async def _ask_all(self, question: Question, timeout_s: float) -> dict[Worker, pb.Event | None]:
        workers = self._dispatcher.workers
        answers = await asyncio.gather(*(self._ask(one, question, timeout_s) for one in workers))
        return dict(zip(workers, answers, strict=True))

    async def _ask(self, worker: Worker, question: Question, timeout_s: float) -> pb.Event | None:
        return await self._dispatcher.questions.ask(worker, question, timeout_s)


def _verify(request_id: int) -> pb.ExecuteRequest:
    return pb.ExecuteRequest(verify=pb.Verify(request_id=request_id))
