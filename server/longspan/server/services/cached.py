"""Where answers of both kinds meet: told from the result cache, or made and kept there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from longspan.server.errors import DocumentMissing
from longspan.server.identity import DocumentId, Tenant
from longspan.server.queue.job import Priority
from longspan.server.results.delivery import Delivery
from longspan.server.results.eligibility import Eligibility, eligibility
from longspan.server.results.first_level import Owner
from longspan.server.results.flight import Flight
from longspan.server.results.key import Named, Recipe, result_key, seed_of
from longspan.server.results.levels import Level
from longspan.server.results.record import KINDS
from longspan.server.results.results import Request
from longspan.server.services import translate
from longspan.server.services.application import Application
from longspan.server.services.conversation import Conversation, named_documents, now_s
from longspan.server.services.extractive import Extractive
from longspan.server.services.generative import Generative
from longspan.server.services.retelling import retold
from longspan.server.services.wire import Inbox, Outgoing
from longspan.server.store.records import StoredDocument
from longspan.server.upload.desk import Header
from longspan.v1 import document_pb2
from longspan.v1 import inference_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that the cache may answer, or learn from."""

    talk: Conversation
    recipe: Recipe


class Cached:
    """Asks the cache before those who answer."""

    def __init__(self, application: Application) -> None:
        self._app = application
        self._limit_bytes = application.limits.result_record_bytes

    async def generate(
        self, talk: Conversation, answering: Extractive | Generative, request: pb.GenerateRequest
    ) -> None:
        """Answer about stored documents."""
        plan = await self._plan(talk, answering)
        if plan is None:
            return await answering.generate(talk, request)
        # As without the cache, only those who have the documents are answered.
        documents = await named_documents(self._app, talk, request)
        talk.progress.waiting(sum(document.size_bytes for document in documents))

        async def run(outbox: Outgoing) -> None:
            await answering.generate(replace(plan.talk, outbox=outbox), request)

        def noticed() -> None:
            talk.clock.first_delta_s = talk.clock.first_delta_s or now_s()
            talk.progress.stage = document_pb2.STAGE_ANSWERING

        asked = self._request(
            talk.call.tenant, [_named(one) for one in documents], plan.recipe, talk.priority
        )
        delivery = Delivery(talk.outbox, noticed)
        answer = await self._app.results.answer(asked, delivery, talk.outbox, run)
        if answer is None:
            return
        # Nothing is awaited behind it, so that no report can follow it.
        await talk.outbox.send(completed=_completed(talk, documents, *answer))

    async def analyze(
        self,
        talk: Conversation,
        answering: Extractive | Generative,
        inbox: Inbox[pb.AnalyzeRequest],
        upload: Header,
    ) -> None:
        """Answer about an arriving document, whose key nobody knows yet, and keep the answer."""
        plan = await self._plan(talk, answering)
        if plan is None:
            return await answering.analyze(talk, inbox, upload)
        keeping = _Keeping(self, talk.call.tenant, plan.recipe, talk.outbox, self._limit_bytes)
        await answering.analyze(replace(plan.talk, outbox=keeping), inbox, upload)

    def keep(
        self,
        tenant: Tenant,
        recipe: Recipe,
        said: Iterable[pb.GenerateResponse],
        completed: pb.Completed,
    ) -> None:
        """Keep an answer that was made anyway, and is not too large."""
        named = [
            Named(document_id=DocumentId(one.document_id), sha256=one.sha256)
            for one in completed.documents
        ]
        asked = self._request(tenant, named, recipe, Priority.NORMAL)
        flight = self._app.results.flight(asked)
        for event in said:
            flight.say(event)
        flight.complete(completed, time.time())
        self._app.results.keep(flight, asked)

    async def _plan(self, talk: Conversation, answering: Extractive | Generative) -> Plan | None:
        mode = translate.cache_mode(talk.message)
        if not self._app.results.enabled:
            return None
        recipe, given = await answering.recipe(talk), talk.message.generation
        match eligibility(mode, recipe.options, any_seed=given.any_seed):
            case Eligibility.NO:
                return None
            case Eligibility.YES:
                return Plan(talk, recipe)
        assert recipe.options is not None, "only a generated answer has a seed"
        message = pb.Task()
        message.CopyFrom(talk.message)
        message.generation.seed = seed_of(talk.task, recipe.options)
        talk = replace(talk, message=message)
        return Plan(talk, await answering.recipe(talk))

    def _request(
        self, tenant: Tenant, named: Sequence[Named], recipe: Recipe, lane: Priority
    ) -> Request:
        ids = [one.document_id for one in named]
        return Request(
            result_key(tenant, named, recipe),
            Owner(tenant, ",".join(ids)),
            lane,
            partial(self._still_there, tenant, ids),
            max_tokens=0 if recipe.options is None else recipe.options.max_tokens,
        )

    async def _still_there(self, tenant: Tenant, ids: Sequence[DocumentId]) -> bool:
        try:
            for document_id in ids:
                await self._app.library.document(tenant, document_id)
        except DocumentMissing:
            return False
        return True


class _Keeping:
    """An ``Outgoing`` that notes an answer, if it is not too large, while the caller is told it."""

    def __init__(
        self, cached: Cached, tenant: Tenant, recipe: Recipe, outbox: Outgoing, limit_bytes: int
    ) -> None:
        self._cached = cached
        self._tenant = tenant
        self._recipe = recipe
        self._outbox = outbox
        self._room_bytes = limit_bytes
        self._said: list[pb.GenerateResponse] = []

    async def send(self, **event: Any) -> None:
        for kind, message in event.items():
            if kind == "completed":
                if self._room_bytes >= 0:
                    self._cached.keep(self._tenant, self._recipe, self._said, message)
                message.cache.CopyFrom(translate.cache_use(None, 0.0))
            elif kind in KINDS and self._room_bytes >= 0:
                noted = pb.GenerateResponse(**event)
                self._room_bytes -= noted.ByteSize()
                self._said.append(noted)
        await self._outbox.send(**event)


def _named(document: StoredDocument) -> Named:
    return Named(document_id=document.document_id, sha256=document.sha256)


def _completed(
    talk: Conversation, documents: Sequence[StoredDocument], flight: Flight, level: Level | None
) -> pb.Completed:
    use = translate.cache_use(level, 0.0 if level is None else time.time() - flight.created_s)
    if level is None:
        own = pb.Completed()
        own.CopyFrom(flight.completed)
        own.cache.CopyFrom(use)
        return own
    known: list[document_pb2.Document] = [translate.document(one) for one in documents]
    return retold(flight.completed, known, use, talk.clock, now_s())
