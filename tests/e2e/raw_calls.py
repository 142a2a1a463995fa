"""Calls as any client in any language could make them, well-behaved or not."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from longspan.v1 import (
    document_pb2,
    document_service_pb2_grpc,
    inference_service_pb2_grpc,
    upload_pb2,
)
from longspan.v1 import document_service_pb2 as documents_pb
from longspan.v1 import inference_service_pb2 as pb
from tests.support.serving import Serving

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True)
class Refusal:
    """An error status, taken apart."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    request_id: str = field(default="", compare=False)

    @classmethod
    def of(cls, error: Any) -> Refusal:
        """Read the details; those of gRPC itself have no reason."""
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        request = error_details_pb2.RequestInfo()
        retry_after_s = None
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            detail.Unpack(info)
            detail.Unpack(request)
            if detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
        message, metadata = error.details() or "", dict(info.metadata)
        code, name = error.code(), request.request_id
        return cls(code, message, info.reason, metadata, retry_after_s, name)


def header(**fields: Any) -> documents_pb.UploadRequest:
    """The message that opens an upload."""
    return documents_pb.UploadRequest(header=upload_pb2.UploadHeader(**fields))


def chunk(offset: int, data: bytes) -> documents_pb.UploadRequest:
    """One chunk."""
    return documents_pb.UploadRequest(chunk=upload_pb2.Chunk(offset=offset, data=data))


def commit(data: bytes, **changes: Any) -> documents_pb.UploadRequest:
    """The commit of ``data``, with ``changes``."""
    fields = {"length": len(data), "sha256": hashlib.sha256(data).hexdigest(), **changes}
    return documents_pb.UploadRequest(commit=upload_pb2.Commit(**fields))


def whole(data: bytes, cuts: Iterable[int] = (), **fields: Any) -> list[Any]:
    """A whole upload, cut at ``cuts``."""
    edges = [0, *cuts, len(data)]
    pieces = itertools.pairwise(edges)
    chunks = [chunk(start, data[start:end]) for start, end in pieces if start < end]
    return [header(**fields), *chunks, commit(data)]


async def collect(call: Any) -> tuple[list[Any], Refusal | None]:
    """All events of a call, and how it was refused, if it was."""
    events: list[Any] = []
    try:
        async for event in call:
            events.append(event)  # noqa: PERF401  # kept when the call fails
    except grpc.aio.AioRpcError as error:
        return events, Refusal.of(error)
    return events, None


def _converse(
    target: str, method: str, messages: Iterable[Any], metadata: Metadata | None
) -> tuple[list[Any], Refusal | None]:
    events: list[Any] = []
    with grpc.insecure_channel(target) as channel:
        documents = document_service_pb2_grpc.DocumentServiceStub(channel)
        inference = inference_service_pb2_grpc.InferenceServiceStub(channel)
        start = documents.Upload if method == "Upload" else inference.Analyze
        try:
            for event in start(iter(messages), metadata=metadata):
                events.append(event)  # noqa: PERF402  # kept when the call fails
        except grpc.RpcError as error:
            return events, Refusal.of(error)
    return events, None


async def converse(
    serving: Serving, method: str, messages: Iterable[Any], metadata: Metadata | None = None
) -> tuple[list[Any], Refusal | None]:
    """Send these messages to ``Upload`` or ``Analyze``, half-close, collect what comes back.

    Sent from a thread: a write of ``grpc.aio`` that meets a refusal hides it.
    """
    return await asyncio.to_thread(_converse, serving.target, method, messages, metadata)


async def upload(
    serving: Serving, messages: Iterable[Any], metadata: Metadata | None = None
) -> tuple[list[documents_pb.UploadResponse], Refusal | None]:
    """Send the messages of an Upload."""
    return await converse(serving, "Upload", messages, metadata)


async def refused(serving: Serving, messages: Iterable[Any]) -> Refusal:
    """The refusal of an upload that must fail."""
    events, refusal = await upload(serving, messages)
    assert refusal is not None, events
    return refusal


async def store(
    serving: Serving, data: bytes, metadata: Metadata | None = None, **fields: Any
) -> document_pb2.Document:
    """Upload ``data`` in the largest chunks; the stored document."""
    size = serving.config.limits.chunk_bytes
    cuts = range(size, len(data), size)
    events, refusal = await upload(serving, whole(data, cuts, **fields), metadata)
    assert refusal is None, refusal
    return events[-1].stored.document


async def read(serving: Serving, document_id: str, start: int = 0, end: int = 0) -> bytes:
    """The bytes of a range of a stored document."""
    span = document_pb2.ByteSpan(start=start, end=end)
    request = documents_pb.ReadDocumentRequest(document_id=document_id, span=span)
    position, data = start, b""
    async for piece in serving.documents.ReadDocument(request):
        assert piece.offset == position
        position += len(piece.data)
        data += piece.data
    return data


def ask(question: str, **fields: Any) -> pb.Task:
    """A question."""
    return pb.Task(ask=pb.Ask(question=question, **fields))


def summarize(sentences: int = 0) -> pb.Task:
    """A summary."""
    return pb.Task(summarize=pb.Summarize(max_sentences=sentences))


@dataclass(frozen=True)
class Answer:
    """What came back from Analyze or Generate."""

    events: list[Any]

    @property
    def text(self) -> str:
        """All deltas."""
        return "".join(event.delta.text for event in self.events if event.HasField("delta"))

    @property
    def citations(self) -> list[pb.Citation]:
        """In the order they came."""
        return [event.citation for event in self.events if event.HasField("citation")]

    @property
    def progress(self) -> list[document_pb2.Progress]:
        """In the order they came."""
        return [event.progress for event in self.events if event.HasField("progress")]

    @property
    def completed(self) -> pb.Completed:
        """The one Completed, which must be the last event."""
        places = [n for n, event in enumerate(self.events) if event.HasField("completed")]
        assert places == [len(self.events) - 1]
        completed: pb.Completed = self.events[-1].completed
        return completed


async def generate(serving: Serving, ids: Sequence[str], task: pb.Task) -> Answer:
    """The answer about stored documents."""
    request = pb.GenerateRequest(document_ids=ids, task=task)
    events, refusal = await collect(serving.inference.Generate(request))
    assert refusal is None, refusal
    return Answer(events)


def analyze_messages(messages: Iterable[Any], task: pb.Task | None) -> list[Any]:
    """An Analyze call's messages made from those of an Upload."""
    return [_analyze_message(message, task) for message in messages]


def _analyze_message(message: Any, task: pb.Task | None) -> pb.AnalyzeRequest:
    kind = message.WhichOneof("part")
    if kind == "header":
        opening = pb.AnalyzeHeader(upload=message.header, task=task)
        return pb.AnalyzeRequest(header=opening)
    return pb.AnalyzeRequest(**{kind: getattr(message, kind)})


async def analyze(
    serving: Serving, messages: Iterable[Any]
) -> tuple[list[pb.AnalyzeResponse], Refusal | None]:
    """Send the messages of an Analyze."""
    return await converse(serving, "Analyze", messages)


async def open_uploads(serving: Serving) -> int:
    """Uploads that can be resumed."""
    return await serving.server.application.library.count_uploads()


async def check_resumes(serving: Serving, upload_id: str, at: int, data: bytes) -> None:
    """The upload goes on at byte ``at`` and ends as ``data``; it is deleted then."""
    chunks = [chunk(at, data[at:])] if at < len(data) else []
    events, refusal = await upload(serving, [header(upload_id=upload_id), *chunks, commit(data)])
    assert refusal is None, refusal
    assert events[0].accepted.committed_bytes == at
    document_id = events[-1].stored.document.document_id
    assert await read(serving, document_id) == data
    request = documents_pb.DeleteDocumentRequest(document_id=document_id)
    await serving.documents.DeleteDocument(request)
