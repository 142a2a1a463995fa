"""Answers that a decoder writes after it has read the documents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace

from google.protobuf.message import Message

from longspan.server.aio import raise_first, run_both
from longspan.server.decoder.decoder import Decoder
from longspan.server.decoder.options import (
    GenerationLimits,
    GenerationOptions,
    generation_options,
)
from longspan.server.decoder.reading import RunningReading
from longspan.server.index.growth import Growth
from longspan.server.queue.job import Subject
from longspan.server.queue.output import FinishReason
from longspan.server.queue.request import RequestInfo
from longspan.server.results.key import Recipe
from longspan.server.services import translate
from longspan.server.services.application import Application
from longspan.server.services.conversation import Conversation, named_documents, now_s
from longspan.server.services.intake import Follow
from longspan.server.services.rebuilding import Rebuilding
from longspan.server.services.wire import Inbox
from longspan.server.store.records import StoredDocument
from longspan.server.tasks.answer import (
    Citation,
    GeneratedEvent,
    ReasoningDelta,
    TextDelta,
    UnverifiedQuote,
)
from longspan.server.tasks.generate import Generating, generating
from longspan.server.tasks.method import Method
from longspan.server.tasks.sources import Sources
from longspan.server.upload.desk import Header
from longspan.server.upload.session import Session
from longspan.v1 import document_pb2
from longspan.v1 import inference_service_pb2 as pb

BYTES_PER_TOKEN = 4
# What is reckoned for a document whose length the client did not declare.
UNDECLARED_BYTES = 64 << 10

_FINISH_REASONS: Mapping[FinishReason, pb.FinishReason] = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
}


class Behind:
    """A reading and its sequence behind an upload: either may fail and end it."""

    def __init__(self, run: Generating, reading: RunningReading) -> None:
        self.run = run
        self._reading = reading

    def check(self) -> None:
        """Raise the error that one of them has ended with, if it has."""
        self._reading.check()
        self.run.check()

    async def finish(self) -> None:
        """Wait until the document is in the prompt."""
        await self._reading.result()

    async def failed(self) -> None:
        """Raise the error of one of them as soon as it has one, though no chunk comes."""
        await run_both(self._reading.result(), self.run.failed())

    async def release(self) -> None:
        """Stop reading."""
        await self._reading.release()


class Generative:
    """Translates; the work is done by intake, decoder and tasks."""

    def __init__(self, application: Application, decoder: Decoder) -> None:
        self._app = application
        self._decoder = decoder

    async def recipe(self, talk: Conversation) -> Recipe:
        """What decides the answer beside the documents.

        Raises:
            InvalidRequest: the options are out of their ranges.
        """
        model, options = self._decoder.model, self._options(talk)
        attention = model.policy(options.attention)
        return Recipe(
            method=Method.GENERATIVE,
            task=talk.task,
            fingerprint=model.fingerprint,
            dtype=model.dtype,
            attention=attention,
            policy=self._decoder.policies.of(default=attention == model.policy(None)),
            files=self._decoder.files_digest,
            prompt=await self._decoder.parts(talk.task),
            options=options,
        )

    async def analyze(
        self, talk: Conversation, inbox: Inbox[pb.AnalyzeRequest], upload: Header
    ) -> None:
        """Take one document in, let the decoder read it while it arrives, answer."""
        options = self._options(talk)
        intake, progress = self._app.intake, talk.progress
        async with AsyncExitStack() as stack:
            follow = self._read_behind(talk, options, stack)
            async with intake.upload(talk.call, upload, inbox, talk.outbox, progress, follow) as (
                document,
                behind,
            ):
                talk.clock.last_byte_s = now_s()
                await behind.finish()
                behind.run.known_as(Subject(document.document_id))
            completed = await self._answer(talk, behind.run, [document])
        await talk.outbox.send(completed=completed)

    async def generate(self, talk: Conversation, request: pb.GenerateRequest) -> None:
        """Let the decoder read stored documents, answer."""
        options = self._options(talk)
        documents = await named_documents(self._app, talk, request)
        size_bytes = sum(document.size_bytes for document in documents)
        # Of several documents nobody knows which one kills.
        subject = documents[0].document_id if len(documents) == 1 else ""
        async with self._generating(talk, options, subject, size_bytes) as run:
            for document in documents:
                talk.progress.received(document)
                with closing(Growth.of_complete(self._app.library.vault.content(document))) as file:
                    await run.reading(file).run()
            completed = await self._answer(talk, run, documents)
        # Nothing is awaited behind it, so that no report can follow it.
        await talk.outbox.send(completed=completed)

    def _options(self, talk: Conversation) -> GenerationOptions:
        policies = self._decoder.model.attention
        return generation_options(talk.message.generation, GenerationLimits(), policies=policies)

    def _read_behind(
        self, talk: Conversation, options: GenerationOptions, stack: AsyncExitStack
    ) -> Follow[Behind]:
        """Reads behind an upload; the sequence stays open as long as ``stack``."""

        @asynccontextmanager
        async def follow(session: Session) -> AsyncIterator[Behind]:
            upload = session.upload
            size_bytes = upload.declared_bytes or UNDECLARED_BYTES
            run = await stack.enter_async_context(
                self._generating(talk, options, upload.upload_id, size_bytes)
            )
            growth = session.watch()
            behind = Behind(run, RunningReading(growth, run.reading(growth)))
            try:
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(behind.failed())
                    yield behind
                    watching.cancel()
            except BaseExceptionGroup as failures:
                raise_first(failures)
            finally:
                await behind.release()

        return follow

    @asynccontextmanager
    async def _generating(
        self, talk: Conversation, options: GenerationOptions, subject: str, size_bytes: int
    ) -> AsyncIterator[Generating]:
        """A prompt about one document or upload, or an empty ``subject`` for several."""
        request = RequestInfo(
            request_id=talk.call.request_id,
            tenant=talk.call.tenant,
            priority=talk.priority,
            tokens=max(size_bytes // BYTES_PER_TOKEN, 1) + options.max_tokens,
            deadline_s=talk.call.deadline_s,
            subject=Subject(subject or talk.call.request_id),
            kept_as=Subject(subject),
            stats=talk.stats,
        )
        async with generating(self._decoder, talk.task, options, request) as run:
            talk.progress.generating = run
            yield run

    async def _answer(
        self, talk: Conversation, run: Generating, documents: Sequence[StoredDocument]
    ) -> pb.Completed:
        run.seal()
        await talk.progress.report(talk.outbox)
        vault = self._app.library.vault
        files = [(document.document_id, vault.content(document)) for document in documents]
        rebuilding = await Rebuilding.of(self._app.library, run, documents)
        with closing(Sources(files)) as sources:
            async for event in run.answer(sources):
                if talk.progress.stage != document_pb2.STAGE_ANSWERING:
                    await self._begin_answer(talk, rebuilding)
                await talk.outbox.send(**_message(event))
        if talk.progress.stage != document_pb2.STAGE_ANSWERING:
            await self._begin_answer(talk, rebuilding)
        if rebuilding is not None:
            await rebuilding.remember()
        return self._completed(talk, run, documents)

    async def _begin_answer(self, talk: Conversation, rebuilding: Rebuilding | None) -> None:
        talk.progress.stage = document_pb2.STAGE_ANSWERING
        await talk.progress.report(talk.outbox)
        if rebuilding is not None:
            await rebuilding.tell(talk)

    def _completed(
        self, talk: Conversation, run: Generating, documents: Sequence[StoredDocument]
    ) -> pb.Completed:
        clock, now = talk.clock, now_s()
        counted = [
            replace(document, tokens=run.tokens_of(place))
            for place, document in enumerate(documents)
        ]
        return pb.Completed(
            finish_reason=_FINISH_REASONS[run.finish.reason],
            usage=pb.Usage(
                document_tokens=run.document_tokens,
                cached_tokens=max(run.cached, run.finish.cached_tokens),
                task_tokens=run.task_tokens,
                retries=talk.stats.retries,
                output_tokens=run.output_tokens,
            ),
            timings=pb.Timings(
                upload=translate.duration(clock.last_byte_s - clock.arrived_s),
                first_delta=translate.duration((run.first_token_s or now) - clock.last_byte_s),
                total=translate.duration(now - clock.arrived_s),
                per_token=translate.duration(run.per_token_s),
            ),
            documents=[translate.document(document) for document in counted],
            model=self._decoder.model.model,
            attention=translate.attention(run.finish.attention),
        )


def _message(event: GeneratedEvent) -> dict[str, Message]:
    match event:
        case TextDelta(text):
            return {"delta": pb.TextDelta(text=text)}
        case ReasoningDelta(text):
            return {"reasoning": pb.ReasoningDelta(text=text)}
        case UnverifiedQuote(quote):
            return {"unverified": pb.UnverifiedQuote(quote=quote)}
        case Citation():
            return {"citation": translate.citation(event)}
