"""DocumentService: upload, look, list, read, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from longspan.server.aio import while_running
from longspan.server.errors import InvalidRequest
from longspan.server.identity import DocumentId
from longspan.server.index.growth import Growth
from longspan.server.kv.holdings import Held
from longspan.server.queue.job import Priority, Subject
from longspan.server.queue.request import RequestStats
from longspan.server.services import translate
from longspan.server.services.admission import Call
from longspan.server.services.application import Application
from longspan.server.services.progressing import Progressing
from longspan.server.services.wire import Context, Inbox, Outbox
from longspan.server.store.records import Place, StoredDocument
from longspan.v1 import document_pb2, document_service_pb2_grpc
from longspan.v1 import document_service_pb2 as pb

DEFAULT_PAGE = 100


class DocumentService(document_service_pb2_grpc.DocumentServiceServicer):
    """Translates calls; the work is done by intake, library and indexes."""

    def __init__(self, application: Application) -> None:
        self._app = application

    async def Upload(  # type: ignore[override]  # a coroutine, not a generator
        self, request_iterator: object, context: Context
    ) -> None:
        """Stream one document up."""
        with self._app.admission.enter(context) as call:
            inbox = Inbox(context, pb.UploadRequest, wait_s=self._app.limits.chunk_wait_s)
            outbox = Outbox(context, pb.UploadResponse)
            progress = Progressing(lambda: self._app.position(call.request_id))
            await while_running(
                self._upload_and_tell(call, inbox, outbox, progress),
                progress.keep_reporting(outbox),
            )

    async def GetDocument(
        self, request: pb.GetDocumentRequest, context: Context
    ) -> pb.GetDocumentResponse:
        """Describe one document."""
        with self._app.admission.enter(context) as call:
            document = await self._app.library.document(
                call.tenant, DocumentId(request.document_id)
            )
            [described] = await self._with_holdings(call, [document])
            return pb.GetDocumentResponse(document=described)

    async def ListDocuments(
        self, request: pb.ListDocumentsRequest, context: Context
    ) -> pb.ListDocumentsResponse:
        """List the caller's documents, newest first."""
        with self._app.admission.enter(context) as call:
            size = request.page_size or min(DEFAULT_PAGE, self._app.limits.list_page)
            if not 1 <= size <= self._app.limits.list_page:
                raise InvalidRequest(
                    f"must be between 1 and {self._app.limits.list_page}", field="page_size"
                )
            after = _place(request.page_token) if request.page_token else None
            found = await self._app.library.documents(call.tenant, limit=size + 1, after=after)
            page = found[:size]
            return pb.ListDocumentsResponse(
                documents=await self._with_holdings(call, page),
                next_page_token=page[-1].place.token() if len(found) > size else "",
            )

    async def DeleteDocument(
        self, request: pb.DeleteDocumentRequest, context: Context
    ) -> pb.DeleteDocumentResponse:
        """Delete one document and everything derived from it."""
        with self._app.admission.enter(context) as call:
            document_id = DocumentId(request.document_id)
            await self._app.library.delete(call.tenant, document_id)
            if self._app.indexes is not None:
                self._app.indexes.forget(document_id)
            await self._app.results.forget(call.tenant, document_id)
            return pb.DeleteDocumentResponse()

    async def ReadDocument(  # type: ignore[override]
        self, request: pb.ReadDocumentRequest, context: Context
    ) -> None:
        """Read a byte range of one document."""
        with self._app.admission.enter(context) as call:
            document = await self._app.library.document(
                call.tenant, DocumentId(request.document_id)
            )
            start, end = _range(request, document.size_bytes)
            growth = Growth.of_complete(self._app.library.vault.content(document))
            try:
                while start < end:
                    size = min(self._app.limits.read_bytes, end - start)
                    data = await asyncio.to_thread(growth.read, start, size)
                    assert data, "the content is shorter than its row says"
                    await context.write(pb.ReadDocumentResponse(offset=start, data=data))
                    start += len(data)
            finally:
                growth.close()

    async def _with_holdings(
        self, call: Call, documents: Sequence[StoredDocument]
    ) -> list[document_pb2.Document]:
        """Documents, and where their KV pages lie if the workers tell soon."""
        held = None
        subjects = [Subject(document.document_id) for document in documents]
        if self._app.kv is not None and subjects:
            held = await self._app.kv.holdings(call.tenant, subjects)
        if held is None:
            return [translate.document(document) for document in documents]
        return [
            translate.document(document, held.get(subject, Held()))
            for document, subject in zip(documents, subjects, strict=True)
        ]

    async def _upload_and_tell(
        self, call: Call, inbox: Inbox[pb.UploadRequest], outbox: Outbox, progress: Progressing
    ) -> None:
        document = await self._upload(call, inbox, outbox, progress)
        await progress.report(outbox)
        await outbox.send(stored=pb.Stored(document=translate.document(document)))

    async def _upload(
        self, call: Call, inbox: Inbox[pb.UploadRequest], outbox: Outbox, progress: Progressing
    ) -> StoredDocument:
        first = await inbox.read()
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidRequest("the first message must be a header", field="part")
        header, stats = translate.header(first.header), RequestStats()
        del first  # thousands of uploads may be open
        follow = self._app.intake.build_behind(call, Priority.NORMAL, progress, stats)
        async with self._app.intake.upload(call, header, inbox, outbox, progress, follow) as (
            document,
            build,
        ):
            if self._app.indexes is None:
                return document
            indexed = await self._app.intake.index(
                call, document, Priority.NORMAL, build, progress, stats
            )
            return indexed.document


def _place(token: str) -> Place:
    try:
        return Place.of_token(token)
    except ValueError as error:
        raise InvalidRequest("not a token of an earlier page", field="page_token") from error


def _range(request: pb.ReadDocumentRequest, size_bytes: int) -> tuple[int, int]:
    start, end = request.span.start, request.span.end or size_bytes
    if not 0 <= start <= end <= size_bytes:
        raise InvalidRequest(
            f"[{start}, {end}) is not within the document's {size_bytes} bytes", field="span"
        )
    return start, end
