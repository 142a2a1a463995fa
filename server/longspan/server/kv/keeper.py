"""Has workers drop the pages of documents and uploads that are gone."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Sequence

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import LongspanError
from longspan.server.identity import Tenant, is_own_name
from longspan.server.pool.worker import Worker
from longspan.server.queue.job import Subject
from longspan.server.queue.questions import Question
from longspan.server.queue.sequences import SequenceDispatcher
from longspan.server.store.library import Library

_log = logging.getLogger(__name__)

ANSWER_S = 10.0
"""How long a worker may take to say that it has forgotten, or what it holds."""

AGAIN_S = 5.0
"""After which one that did not answer is looked through."""

MOST_WAITING = 4096
"""Names that wait to be forgotten; instead of further ones, all that a worker has is compared."""


class Keeper:
    """Two ways to the same end. What is removed while the server runs is forgotten by name. Every
    worker that becomes ready, at the server's start or after a death, is asked what it has, and
    forgets what the library does not know: so nothing is left of what was removed while it was
    down. Names that are not of this server's making are left alone.
    """

    def __init__(self, dispatcher: SequenceDispatcher, library: Library) -> None:
        self._dispatcher = dispatcher
        self._library = library
        self._wake = asyncio.Event()
        self._gone: OrderedDict[tuple[Tenant, Subject], None] = OrderedDict()
        self._unseen: set[Worker] = set()

    def removed(self, tenant: Tenant, names: Sequence[str]) -> None:
        """A tenant has no longer the documents and uploads of these names."""
        for name in names:
            self._dispatcher.forgotten(tenant, Subject(name))
            self._forget(tenant, Subject(name))

    async def run(self) -> None:
        """Do what is to be done, until cancelled."""
        self._dispatcher.watch(ready=self._look, left_over=self._forget)
        self._library.watch(self.removed)
        for worker in self._dispatcher.workers:
            self._look(worker)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._gone:
                (tenant, subject), _ = self._gone.popitem(last=False)
                await self._forget_everywhere(tenant, subject)
            for worker in self._ready_ones():
                self._unseen.discard(worker)
                await self._look_through(worker)

    def _look(self, worker: Worker) -> None:
        self._unseen.add(worker)
        self._wake.set()

    def _forget(self, tenant: Tenant, subject: Subject) -> None:
        self._gone[tenant, subject] = None
        if len(self._gone) > MOST_WAITING:
            self._gone.clear()
            self._unseen.update(self._dispatcher.workers)
        self._wake.set()

    def _ready_ones(self) -> list[Worker]:
        """Those to be looked through; the dead are forgotten."""
        self._unseen.intersection_update(self._dispatcher.workers)
        return list(self._unseen)

    async def _forget_everywhere(self, tenant: Tenant, subject: Subject) -> None:
        workers = self._dispatcher.workers
        question = forget(tenant, subject)
        answers = await asyncio.gather(*(self._ask(worker, question) for worker in workers))
        for worker, answer in zip(workers, answers, strict=True):
            if answer is None:
                self._look_later(worker)

    async def _look_through(self, worker: Worker) -> None:
        """Have a worker forget what the library does not know."""
        answer = await self._ask(worker, inventory(""))
        if answer is None:
            self._look_later(worker)
            return
        # Asked in this order: what a worker has now, the library knew before or has removed.
        named = [(Tenant(one.tenant), one.subject) for one in answer.holdings.holdings]
        own = [(tenant, name) for tenant, name in named if tenant and is_own_name(name)]
        try:
            unknown = await self._library.unknown(own)
        except (LongspanError, OSError, sqlite3.Error) as error:
            _log.warning("%s keeps what it has for now: %s", worker.name, error)
            self._look_later(worker)
            return
        for tenant, name in unknown:
            if await self._ask(worker, forget(tenant, Subject(name))) is None:
                self._look_later(worker)
                return

    def _look_later(self, worker: Worker) -> None:
        asyncio.get_running_loop().call_later(AGAIN_S, self._look, worker)

    async def _ask(self, worker: Worker, question: Question) -> pb.Event | None:
        return await self._dispatcher.questions.ask(worker, question, ANSWER_S)


def forget(tenant: Tenant, subject: Subject) -> Question:
    """Drop one subject of a tenant, or all where the name is empty."""
    assert tenant, "an empty name means all tenants"
    return lambda request_id: pb.ExecuteRequest(
        forget=pb.Forget(request_id=request_id, tenant=tenant, subject=subject)
    )


def inventory(tenant: str, subjects: Sequence[Subject] = ()) -> Question:
    """What a tenant's pages are of, and where they lie; of all tenants where the name is empty.

    Args:
        subjects: which to tell of; none: all.
    """
    return lambda request_id: pb.ExecuteRequest(
        inventory=pb.Inventory(request_id=request_id, tenant=tenant, subjects=subjects)
    )
