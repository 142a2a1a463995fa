"""InferenceService: one task on an arriving document, or on stored ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

from longspan.server.aio import while_running
from longspan.server.errors import InvalidRequest
from longspan.server.identity import DocumentId
from longspan.server.queue.job import Priority, Subject
from longspan.server.queue.request import RequestInfo, RequestStats
from longspan.server.services import translate
from longspan.server.services.admission import Call
from longspan.server.services.application import Application
from longspan.server.services.intake import Indexed
from longspan.server.services.progressing import Progressing
from longspan.server.services.wire import Context, Inbox, Outbox
from longspan.server.tasks.answer import TextDelta
from longspan.server.tasks.content import Content
from longspan.server.tasks.runner import TaskRun
from longspan.server.tasks.task import check_task
from longspan.v1 import document_pb2, inference_service_pb2_grpc
from longspan.v1 import inference_service_pb2 as pb

# A question is a short request, however long its document.
QUESTION_TOKENS = 1024


@dataclass(slots=True)
class Clock:
    """When things happened, on the event loop's clock, in seconds."""

    arrived_s: float
    last_byte_s: float
    first_delta_s: float

    @classmethod
    def started(cls, arrived_s: float) -> Clock:
        """Nothing but the request has come."""
        return cls(arrived_s, arrived_s, 0.0)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One call's parts."""

    call: Call
    outbox: Outbox
    progress: Progressing
    clock: Clock
    stats: RequestStats
    priority: Priority


class InferenceService(inference_service_pb2_grpc.InferenceServiceServicer):
    """Translates calls; the work is done by intake and tasks."""

    def __init__(self, application: Application) -> None:
        self._app = application

    async def Analyze(  # type: ignore[override]  # a coroutine, not a generator
        self, request_iterator: object, context: Context
    ) -> None:
        """Upload one document and run one task on it."""
        with self._app.admission.enter(context) as call:
            inbox = Inbox(context, pb.AnalyzeRequest, wait_s=self._app.limits.chunk_wait_s)
            first = await inbox.read()
            if first is None or first.WhichOneof("part") != "header":
                raise InvalidRequest("the first message must be a header", field="part")
            talk = self._talk(call, Outbox(context, pb.AnalyzeResponse), first.header.task)
            await while_running(
                self._analyze(talk, inbox, first.header), talk.progress.keep_reporting(talk.outbox)
            )

    async def Generate(  # type: ignore[override]
        self, request: pb.GenerateRequest, context: Context
    ) -> None:
        """Run one task on stored documents."""
        with self._app.admission.enter(context) as call:
            talk = self._talk(call, Outbox(context, pb.GenerateResponse), request.task)
            await while_running(
                self._generate(talk, request), talk.progress.keep_reporting(talk.outbox)
            )

    async def _analyze(
        self, talk: Conversation, inbox: Inbox[pb.AnalyzeRequest], header: pb.AnalyzeHeader
    ) -> None:
        upload = translate.header(header.upload)
        async with self._task(talk, header.task) as run:
            async with self._app.intake.upload(
                talk.call, upload, talk.priority, inbox, talk.outbox, talk.progress, talk.stats
            ) as (document, build):
                talk.clock.last_byte_s = _now_s()
                indexed = await self._app.intake.index(
                    talk.call, document, talk.priority, build, talk.progress, talk.stats
                )
            completed = await self._answer(talk, run, [indexed])
        await talk.outbox.send(completed=completed)

    async def _generate(self, talk: Conversation, request: pb.GenerateRequest) -> None:
        ids = [DocumentId(document_id) for document_id in request.document_ids]
        limit = self._app.limits.documents_per_request
        if not 1 <= len(ids) <= limit or len(set(ids)) < len(ids):
            raise InvalidRequest(f"name 1 to {limit} different documents", field="document_ids")
        async with self._task(talk, request.task) as run:
            documents = [
                await self._app.library.document(talk.call.tenant, document_id)
                for document_id in ids
            ]
            indexed = [
                await self._app.intake.index(
                    talk.call, document, talk.priority, None, talk.progress, talk.stats
                )
                for document in documents
            ]
            completed = await self._answer(talk, run, indexed)
        # Nothing is awaited behind it, so that no report can follow it.
        await talk.outbox.send(completed=completed)

    @asynccontextmanager
    async def _task(self, talk: Conversation, message: pb.Task) -> AsyncIterator[TaskRun]:
        task = translate.task(message)
        check_task(task, self._app.limits)
        request = RequestInfo(
            request_id=talk.call.request_id,
            tenant=talk.call.tenant,
            priority=max(talk.priority, Priority.NORMAL),
            tokens=QUESTION_TOKENS,
            deadline_s=talk.call.deadline_s,
            # A question that kills a worker is no reason to refuse its document to others.
            subject=Subject(talk.call.request_id),
            stats=talk.stats,
        )
        run = TaskRun(task, self._app.require_embedder(), request)
        try:
            await run.begin()
            yield run
        finally:
            await run.close()

    async def _answer(
        self, talk: Conversation, run: TaskRun, indexed: Sequence[Indexed]
    ) -> pb.Completed:
        talk.progress.stage = document_pb2.STAGE_ANSWERING
        await talk.progress.report(talk.outbox)
        with ExitStack() as open_files:
            contents = []
            for one in indexed:
                path = self._app.library.vault.content(one.document)
                content = Content(one.document.document_id, path, one.index)
                open_files.callback(content.close)
                contents.append(content)
            await self._stream(talk, run, contents)
        return self._completed(talk, run, indexed)

    async def _stream(self, talk: Conversation, run: TaskRun, contents: Sequence[Content]) -> None:
        async for event in run.answer(contents):
            talk.clock.first_delta_s = talk.clock.first_delta_s or _now_s()
            if isinstance(event, TextDelta):
                await talk.outbox.send(delta=pb.TextDelta(text=event.text))
            else:
                await talk.outbox.send(citation=translate.citation(event))

    def _talk(self, call: Call, outbox: Outbox, task: pb.Task) -> Conversation:
        return Conversation(
            call,
            outbox,
            Progressing(lambda: self._app.position(call.request_id)),
            Clock.started(call.arrived_s),
            RequestStats(),
            translate.priority(task),
        )

    def _completed(
        self, talk: Conversation, run: TaskRun, indexed: Sequence[Indexed]
    ) -> pb.Completed:
        clock, now_s = talk.clock, _now_s()
        answered = clock.first_delta_s > 0
        return pb.Completed(
            finish_reason=pb.FINISH_REASON_STOP if answered else pb.FINISH_REASON_NO_ANSWER,
            usage=pb.Usage(
                document_tokens=sum(one.index.tokens for one in indexed),
                cached_tokens=sum(one.index.tokens for one in indexed if one.cached),
                task_tokens=run.task_tokens,
                retries=talk.stats.retries,
            ),
            timings=pb.Timings(
                upload=translate.duration(clock.last_byte_s - clock.arrived_s),
                first_delta=translate.duration((clock.first_delta_s or now_s) - clock.last_byte_s),
                total=translate.duration(now_s - clock.arrived_s),
            ),
            documents=[translate.document(one.document) for one in indexed],
            model=self._app.require_embedder().model.model,
        )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
