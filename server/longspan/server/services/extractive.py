"""Answers made of the documents' own sentences, which the encoder picks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager

from longspan.server.queue.job import Priority, Subject
from longspan.server.queue.request import RequestInfo
from longspan.server.results.key import Recipe
from longspan.server.services import translate
from longspan.server.services.application import Application
from longspan.server.services.conversation import Conversation, named_documents, now_s
from longspan.server.services.intake import Indexed
from longspan.server.services.wire import Inbox
from longspan.server.tasks.answer import TextDelta
from longspan.server.tasks.content import Content
from longspan.server.tasks.method import Method
from longspan.server.tasks.runner import TaskRun
from longspan.server.upload.desk import Header
from longspan.v1 import document_pb2
from longspan.v1 import inference_service_pb2 as pb

# A question is a short request, however long its document.
QUESTION_TOKENS = 1024


class Extractive:
    """Translates; the work is done by intake and tasks."""

    def __init__(self, application: Application) -> None:
        self._app = application

    async def recipe(self, talk: Conversation) -> Recipe:
        """What decides the answer beside the documents.

        Raises:
            WorkersUnavailable: the server runs without an encoder.
        """
        model = self._app.require_embedder().model
        return Recipe(
            method=Method.EXTRACTIVE,
            task=talk.task,
            fingerprint=model.fingerprint,
            dtype=model.dtype,
        )

    async def analyze(
        self, talk: Conversation, inbox: Inbox[pb.AnalyzeRequest], upload: Header
    ) -> None:
        """Take one document in, index it while it arrives, answer."""
        intake, progress = self._app.intake, talk.progress
        follow = intake.build_behind(talk.call, talk.priority, progress, talk.stats)
        async with self._task(talk) as run:
            async with intake.upload(talk.call, upload, inbox, talk.outbox, progress, follow) as (
                document,
                build,
            ):
                talk.clock.last_byte_s = now_s()
                indexed = await intake.index(
                    talk.call, document, talk.priority, build, progress, talk.stats
                )
            completed = await self._answer(talk, run, [indexed])
        await talk.outbox.send(completed=completed)

    async def generate(self, talk: Conversation, request: pb.GenerateRequest) -> None:
        """Answer about stored documents, which are indexed if they are not."""
        async with self._task(talk) as run:
            documents = await named_documents(self._app, talk, request)
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
    async def _task(self, talk: Conversation) -> AsyncIterator[TaskRun]:
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
        run = TaskRun(talk.task, self._app.require_embedder(), request)
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
            talk.clock.first_delta_s = talk.clock.first_delta_s or now_s()
            if isinstance(event, TextDelta):
                await talk.outbox.send(delta=pb.TextDelta(text=event.text))
            else:
                await talk.outbox.send(citation=translate.citation(event))

    def _completed(
        self, talk: Conversation, run: TaskRun, indexed: Sequence[Indexed]
    ) -> pb.Completed:
        clock, now = talk.clock, now_s()
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
                first_delta=translate.duration((clock.first_delta_s or now) - clock.last_byte_s),
                total=translate.duration(now - clock.arrived_s),
            ),
            documents=[translate.document(one.document) for one in indexed],
            model=self._app.require_embedder().model.model,
        )
