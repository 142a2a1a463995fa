"""InferenceService: one task on an arriving document, or on stored ones."""

from __future__ import annotations

from longspan.server.aio import while_running
from longspan.server.errors import InvalidRequest
from longspan.server.queue.request import RequestStats
from longspan.server.services import translate
from longspan.server.services.admission import Call
from longspan.server.services.application import Application
from longspan.server.services.cached import Cached
from longspan.server.services.conversation import Clock, Conversation, check_document_ids
from longspan.server.services.extractive import Extractive
from longspan.server.services.generative import Generative
from longspan.server.services.measured import Measured
from longspan.server.services.progressing import Progressing
from longspan.server.services.wire import Context, Inbox, Outbox
from longspan.server.tasks.method import Method, choose_method
from longspan.server.tasks.task import check_task
from longspan.v1 import document_pb2, inference_service_pb2_grpc
from longspan.v1 import inference_service_pb2 as pb


class InferenceService(inference_service_pb2_grpc.InferenceServiceServicer):
    """Chooses who answers; the rest is done by ``Extractive`` and ``Generative``."""

    def __init__(self, application: Application) -> None:
        self._app = application
        self._cached = Cached(application)

    async def Analyze(  # type: ignore[override]  # a coroutine, not a generator
        self, request_iterator: object, context: Context
    ) -> None:
        """Upload one document and run one task on it."""
        with self._app.admission.enter(context) as call:
            inbox = Inbox(context, pb.AnalyzeRequest, wait_s=self._app.limits.chunk_wait_s)
            first = await inbox.read()
            if first is None or first.WhichOneof("part") != "header":
                raise InvalidRequest("the first message must be a header", field="part")
            upload = translate.header(first.header.upload)
            outbox = Outbox(context, pb.AnalyzeResponse)
            talk, answering = self._talk(call, outbox, first.header.task)
            await while_running(
                self._cached.analyze(talk, answering, inbox, upload),
                talk.progress.keep_reporting(talk.outbox),
            )

    async def Generate(  # type: ignore[override]
        self, request: pb.GenerateRequest, context: Context
    ) -> None:
        """Run one task on stored documents."""
        with self._app.admission.enter(context) as call:
            outbox = Outbox(context, pb.GenerateResponse)
            talk, answering = self._talk(call, outbox, request.task)
            check_document_ids(self._app, request)
            await while_running(
                self._cached.generate(talk, answering, request),
                talk.progress.keep_reporting(talk.outbox),
            )

    def _talk(
        self,
        call: Call,
        outbox: Outbox,
        message: pb.Task,
    ) -> tuple[Conversation, Extractive | Generative]:
        """What was asked, and who answers it.

        Raises:
            InvalidRequest: the task is malformed.
            DecoderRequired: nobody here can do it.
        """
        priority, task = translate.priority(message), translate.task(message)
        translate.cache_mode(message)
        check_task(task, self._app.limits)
        decoder = self._app.decoder
        method = choose_method(task, translate.method(message), decoder=decoder is not None)
        answering: Extractive | Generative = Extractive(self._app)
        behind = document_pb2.STAGE_INDEXING
        if method is Method.GENERATIVE:
            assert decoder is not None
            answering = Generative(self._app, decoder)
            behind = document_pb2.STAGE_PREFILLING
        progress = Progressing(lambda: self._app.position(call.request_id), behind=behind)
        clock = Clock.started(call.arrived_s)
        kind = message.WhichOneof("kind")
        measured = Measured(outbox, self._app.metrics.requests, kind, clock)
        stats = RequestStats()
        talk = Conversation(call, measured, progress, clock, stats, priority, message, task)
        return talk, answering
