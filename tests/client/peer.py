"""A small server that follows the protocol, for behaviours that are hard to provoke."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from longspan.server import errors
from longspan.server.services.statuses import fault_status, to_status
from longspan.v1 import (
    cache_service_pb2,
    cache_service_pb2_grpc,
    document_pb2,
    document_service_pb2_grpc,
    inference_service_pb2_grpc,
    upload_pb2,
)
from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import inference_service_pb2 as inference

Context = grpc.aio.ServicerContext[Any, Any]


class PlainCut(Exception):
    """Ends a call with UNAVAILABLE and no details, as a dying server does."""


class Fault(Exception):
    """Ends a call as an unknown exception of the server does."""


class Hang(Exception):
    """Leaves a call without an event until the client cancels it."""


Failure = Exception


@dataclass
class Script:
    """What the peer does; every list is used up from its left.

    Attributes:
        failures: ends the next calls at their beginning, one each.
        answer_failures: ends the next answers after so many events, one each.
        answers: events of the next answers; the last one is used for all that follow.
        stored_failures: ends the next uploads after the commit was kept, one each.
        chunk_failures: ends the next uploads once so many bytes were kept, one each.
        completed: what the terminal event says beside the documents.
        stats: of the cache.
        max_chunk_bytes: what Accepted says.
        ack_bytes: how often bytes are acknowledged.
    """

    failures: deque[Failure] = field(default_factory=deque)
    answer_failures: deque[tuple[int, Failure]] = field(default_factory=deque)
    answers: deque[list[Any]] = field(default_factory=lambda: deque([[]]))
    stored_failures: deque[Failure] = field(default_factory=deque)
    chunk_failures: deque[tuple[int, Failure]] = field(default_factory=deque)
    completed: inference.Completed = field(
        default_factory=lambda: inference.Completed(
            finish_reason=inference.FINISH_REASON_STOP, model="peer"
        )
    )
    stats: cache_service_pb2.StatsResponse = field(default_factory=cache_service_pb2.StatsResponse)
    max_chunk_bytes: int = 1 << 20
    ack_bytes: int = 4096


@dataclass
class Kept:
    """One upload; ``streams`` counts those that have sent it, of which the newest may go on."""

    title: str
    media_type: str
    streams: int = 0
    data: bytearray = field(default_factory=bytearray)


class Peer(
    document_service_pb2_grpc.DocumentServiceServicer,
    inference_service_pb2_grpc.InferenceServiceServicer,
    cache_service_pb2_grpc.CacheServiceServicer,
):
    """Keeps uploads and documents in memory and records what it saw."""

    def __init__(self) -> None:
        self.script = Script()
        self.uploads: dict[str, Kept] = {}
        self.documents: dict[str, tuple[document_pb2.Document, bytes]] = {}
        self.calls: list[str] = []
        self.headers: list[upload_pb2.UploadHeader] = []
        self.tasks: list[inference.Task] = []
        self.metadata: list[dict[str, str]] = []
        self.received_bytes = 0
        self.cancelled = asyncio.Event()
        self.hanging = asyncio.Event()

    def add(self, data: bytes, title: str = "") -> str:
        """Put a document in; returns its id."""
        digest = hashlib.sha256(data).hexdigest()
        document = document_pb2.Document(
            document_id=f"doc_{digest[:24]}",
            title=title,
            media_type="text/plain",
            size_bytes=len(data),
            size_chars=len(data.decode()),
            sha256=digest,
            tokens=len(data) // 4,
            passages=1,
        )
        document.create_time.FromSeconds(1_700_000_000)
        self.documents[document.document_id] = document, data
        return document.document_id

    async def Upload(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override]
        """Stream one document up."""
        async with self._call("Upload", context):
            document = await self._receive(context, docs.UploadResponse)
            await context.write(docs.UploadResponse(stored=docs.Stored(document=document)))

    async def Analyze(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override]
        """Upload and answer."""
        async with self._call("Analyze", context):
            document = await self._receive(context, inference.AnalyzeResponse)
            await self._answer(context, inference.AnalyzeResponse, [document])

    async def Generate(  # type: ignore[override]
        self, request: inference.GenerateRequest, context: Context
    ) -> None:
        """Answer."""
        async with self._call("Generate", context):
            self.tasks.append(request.task)
            documents = [self._document(one)[0] for one in request.document_ids]
            await self._answer(context, inference.GenerateResponse, documents)

    async def GetDocument(
        self, request: docs.GetDocumentRequest, context: Context
    ) -> docs.GetDocumentResponse:
        """Describe one document."""
        async with self._call("GetDocument", context):
            return docs.GetDocumentResponse(document=self._document(request.document_id)[0])

    async def ListDocuments(
        self, request: docs.ListDocumentsRequest, context: Context
    ) -> docs.ListDocumentsResponse:
        """List in pages of two, so that there are several."""
        async with self._call("ListDocuments", context):
            ids = list(self.documents)
            start = int(request.page_token or 0)
            return docs.ListDocumentsResponse(
                documents=[self.documents[one][0] for one in ids[start : start + 2]],
                next_page_token=str(start + 2) if start + 2 < len(ids) else "",
            )

    async def DeleteDocument(
        self, request: docs.DeleteDocumentRequest, context: Context
    ) -> docs.DeleteDocumentResponse:
        """Delete one document."""
        async with self._call("DeleteDocument", context):
            self._document(request.document_id)
            del self.documents[request.document_id]
            return docs.DeleteDocumentResponse()

    async def ReadDocument(  # type: ignore[override]
        self, request: docs.ReadDocumentRequest, context: Context
    ) -> None:
        """Read in pieces of 1000 bytes."""
        async with self._call("ReadDocument", context):
            data = self._document(request.document_id)[1]
            start, end = request.span.start, request.span.end or len(data)
            for at in range(start, end, 1000):
                piece = data[at : min(at + 1000, end)]
                await context.write(docs.ReadDocumentResponse(offset=at, data=piece))
                if self.script.answer_failures and at >= self.script.answer_failures[0][0]:
                    raise self.script.answer_failures.popleft()[1]

    async def Stats(
        self, request: cache_service_pb2.StatsRequest, context: Context
    ) -> cache_service_pb2.StatsResponse:
        """What the script says."""
        async with self._call("Stats", context):
            return self.script.stats

    async def Verify(
        self, request: cache_service_pb2.VerifyRequest, context: Context
    ) -> cache_service_pb2.VerifyResponse:
        """Always the same."""
        async with self._call("Verify", context):
            return cache_service_pb2.VerifyResponse(
                checked=1200, damaged=2, missing=1, unknown=3, bytes=5 << 20
            )

    async def Clear(
        self, request: cache_service_pb2.ClearRequest, context: Context
    ) -> cache_service_pb2.ClearResponse:
        """Always the same."""
        async with self._call("Clear", context):
            return cache_service_pb2.ClearResponse(pages=1200, bytes=3 << 20, answers=7)

    async def _receive(self, context: Context, response: Any) -> document_pb2.Document:
        first = await context.read()
        header = first.header
        if isinstance(first, inference.AnalyzeRequest):
            self.tasks.append(header.task)
            header = header.upload
        self.headers.append(header)
        upload_id, kept = self._open(header)
        accepted = upload_pb2.Accepted(
            upload_id=upload_id,
            committed_bytes=len(kept.data),
            max_chunk_bytes=self.script.max_chunk_bytes,
        )
        await context.write(response(accepted=accepted))
        commit = await self._chunks(context, response, upload_id, kept)
        return await self._store(commit, kept)

    def _open(self, header: upload_pb2.UploadHeader) -> tuple[str, Kept]:
        upload_id = header.upload_id or f"up_{len(self.uploads)}_{len(self.headers)}"
        if header.upload_id and header.upload_id not in self.uploads:
            raise errors.UploadMissing("no such upload")
        kept = self.uploads.setdefault(upload_id, Kept(header.title, header.media_type))
        kept.streams += 1
        return upload_id, kept

    async def _chunks(
        self, context: Context, response: Any, upload_id: str, kept: Kept
    ) -> upload_pb2.Commit:
        acked, stream = len(kept.data), kept.streams
        while (part := await context.read()) is not grpc.aio.EOF:
            if part.WhichOneof("part") == "commit":
                return upload_pb2.Commit.FromString(part.commit.SerializeToString())
            if stream != kept.streams:
                raise errors.UploadBusy("a newer stream sends this upload")
            assert len(part.chunk.data) <= self.script.max_chunk_bytes
            if part.chunk.offset != len(kept.data):
                raise errors.ChunkOutOfOrder(len(kept.data), part.chunk.offset)
            kept.data += part.chunk.data
            self.received_bytes += len(part.chunk.data)
            if self.script.chunk_failures and len(kept.data) >= self.script.chunk_failures[0][0]:
                raise self.script.chunk_failures.popleft()[1]
            if len(kept.data) - acked >= self.script.ack_bytes:
                acked = len(kept.data)
                await context.write(response(ack=upload_pb2.Ack(committed_bytes=acked)))
        raise errors.UploadIncomplete(upload_id, len(kept.data))

    async def _store(self, commit: upload_pb2.Commit, kept: Kept) -> document_pb2.Document:
        if not kept.data:
            raise errors.EmptyDocument("the document is empty", field="commit.length")
        if commit.length != len(kept.data):
            raise errors.LengthMismatch("other length", field="commit.length")
        if commit.sha256 != hashlib.sha256(kept.data).hexdigest():
            raise errors.DigestMismatch("other bytes")
        document = self.documents[self.add(bytes(kept.data), kept.title)][0]
        document.media_type = kept.media_type
        if self.script.stored_failures:
            raise self.script.stored_failures.popleft()
        return document

    async def _answer(
        self, context: Context, response: Any, documents: Sequence[document_pb2.Document]
    ) -> None:
        answers = self.script.answers
        events = answers.popleft() if len(answers) > 1 else answers[0]
        broken = self.script.answer_failures.popleft() if self.script.answer_failures else None
        stage = document_pb2.Progress(stage=document_pb2.STAGE_ANSWERING)
        await context.write(response(progress=stage))
        for number, event in enumerate(events):
            if broken is not None and number >= broken[0]:
                raise broken[1]
            await context.write(response(**event))
        if broken is not None:
            raise broken[1]
        completed = inference.Completed(documents=documents)
        completed.MergeFrom(self.script.completed)
        await context.write(response(completed=completed))

    def _document(self, document_id: str) -> tuple[document_pb2.Document, bytes]:
        if document_id not in self.documents:
            raise errors.DocumentMissing(f"no document {document_id}")
        return self.documents[document_id]

    @asynccontextmanager
    async def _call(self, name: str, context: Context) -> AsyncIterator[None]:
        self.calls.append(name)
        self.metadata.append({str(k): str(v) for k, v in context.invocation_metadata() or ()})
        try:
            if self.script.failures:
                raise self.script.failures.popleft()
            yield
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        except Hang:
            self.hanging.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        except PlainCut:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "socket closed")
        except Fault:
            await context.abort_with_status(rpc_status.to_status(fault_status()[1]))
        except errors.LongspanError as error:
            await context.abort_with_status(rpc_status.to_status(to_status(error)))


def delta(text: str) -> dict[str, Any]:
    """A piece of an answer."""
    return {"delta": inference.TextDelta(text=text)}


def citation(index: int, quote: str, *, score: float = 0.5) -> dict[str, Any]:
    """A citation of the first bytes."""
    span = document_pb2.ByteSpan(start=0, end=len(quote.encode()))
    return {
        "citation": inference.Citation(
            index=index, document_id="doc_1", span=span, quote=quote, passage=span, score=score
        )
    }


def reasoning(text: str) -> dict[str, Any]:
    """A piece of what the model thinks before it answers."""
    return {"reasoning": inference.ReasoningDelta(text=text)}


def unverified(quote: str) -> dict[str, Any]:
    """A quotation that stands nowhere."""
    return {"unverified": inference.UnverifiedQuote(quote=quote)}


def prefilling(tokens: int, prefilled: int, *, cached: int = 0, ahead: int = 0) -> dict[str, Any]:
    """The decoder reads the prompt."""
    return {
        "progress": document_pb2.Progress(
            stage=document_pb2.STAGE_PREFILLING,
            tokens=tokens,
            tokens_prefilled=prefilled,
            tokens_cached=cached,
            queue_position=ahead,
        )
    }


def generated(
    *,
    finish_reason: inference.FinishReason = inference.FINISH_REASON_STOP,
    attention: inference.AttentionUsage | None = None,
) -> inference.Completed:
    """How a generated answer ends: 8000 of 8200 tokens cached, 60 written, 25 ms each."""
    completed = inference.Completed(finish_reason=finish_reason, model="peer", attention=attention)
    completed.usage.document_tokens = 8_100
    completed.usage.task_tokens = 100
    completed.usage.cached_tokens = 8_000
    completed.usage.output_tokens = 60
    completed.timings.first_delta.FromMilliseconds(310)
    completed.timings.per_token.FromMicroseconds(25_000)
    return completed


@asynccontextmanager
async def running_peer(port: int = 0) -> AsyncIterator[tuple[Peer, str]]:
    """A peer on a loopback socket, and its target."""
    peer, server = Peer(), grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    document_service_pb2_grpc.add_DocumentServiceServicer_to_server(peer, server)
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(peer, server)
    cache_service_pb2_grpc.add_CacheServiceServicer_to_server(peer, server)
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield peer, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
