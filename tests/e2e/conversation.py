"""Raw calls, spoken message by message, for what no well-behaved client does."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from longspan.v1 import document_pb2, upload_pb2
from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import inference_service_pb2 as inference

TENANT_KEY = "longspan-tenant"


@dataclass
class Answer:
    """What one request was told.

    Attributes:
        said: deltas and citations in the order in which they came.
        completed: every Completed that came; exactly one is right.
        stages: the stages of the progress messages, in order.
    """

    said: list[tuple[object, ...]] = field(default_factory=list)
    completed: list[inference.Completed] = field(default_factory=list)
    stages: list[int] = field(default_factory=list)
    upload_id: str = ""

    def take(self, event: Any) -> None:
        """Note one response message."""
        kind = event.WhichOneof("event")
        assert not self.completed, f"{kind} after Completed"
        match kind:
            case "accepted":
                self.upload_id = event.accepted.upload_id
            case "progress":
                self.stages.append(event.progress.stage)
            case "delta":
                self.said.append(("delta", event.delta.text))
            case "citation":
                self.said.append(_cited(event.citation))
            case "completed":
                self.completed.append(event.completed)

    @property
    def end(self) -> inference.Completed:
        """The one Completed."""
        [completed] = self.completed
        return completed


def _cited(one: inference.Citation) -> tuple[object, ...]:
    place = (one.span.start, one.span.end, one.passage.start, one.passage.end)
    return "citation", one.index, place, one.quote, one.score


def ask(question: str, citations: int = 3) -> inference.Task:
    """A question."""
    return inference.Task(ask=inference.Ask(question=question, max_citations=citations))


def summarize(sentences: int = 4) -> inference.Task:
    """A summary."""
    return inference.Task(summarize=inference.Summarize(max_sentences=sentences))


def tenant(name: str) -> tuple[tuple[str, str], ...]:
    """Call metadata of a tenant."""
    return ((TENANT_KEY, name),)


def sha256(data: bytes) -> str:
    """What a commit says."""
    return hashlib.sha256(data).hexdigest()


def commit(data: bytes) -> upload_pb2.Commit:
    """The commit of a whole document."""
    return upload_pb2.Commit(length=len(data), sha256=sha256(data))


def chunks(data: bytes, size: int, start: int = 0) -> Iterator[upload_pb2.Chunk]:
    """The rest of ``data`` from ``start``."""
    for offset in range(start, len(data), size):
        yield upload_pb2.Chunk(offset=offset, data=data[offset : offset + size])


def analyze_header(task: inference.Task, upload_id: str = "") -> inference.AnalyzeRequest:
    """The first message of Analyze."""
    upload = upload_pb2.UploadHeader(upload_id=upload_id, title="a document")
    return inference.AnalyzeRequest(header=inference.AnalyzeHeader(upload=upload, task=task))


def upload_header(upload_id: str = "") -> docs.UploadRequest:
    """The first message of Upload."""
    header = upload_pb2.UploadHeader(upload_id=upload_id, title="a document")
    return docs.UploadRequest(header=header)


def analyze_messages(
    data: bytes, task: inference.Task, chunk_bytes: int
) -> Iterator[inference.AnalyzeRequest]:
    """All messages of one Analyze."""
    yield analyze_header(task)
    for chunk in chunks(data, chunk_bytes):
        yield inference.AnalyzeRequest(chunk=chunk)
    yield inference.AnalyzeRequest(commit=commit(data))


def upload_messages(data: bytes, chunk_bytes: int = 1 << 16) -> Iterator[docs.UploadRequest]:
    """All messages of one Upload."""
    yield upload_header()
    for chunk in chunks(data, chunk_bytes):
        yield docs.UploadRequest(chunk=chunk)
    yield docs.UploadRequest(commit=commit(data))


async def sending(messages: Iterable[Any]) -> AsyncIterator[Any]:
    """A request stream of prepared messages."""
    for message in messages:
        yield message


async def listen(call: Any, answer: Answer | None = None) -> Answer:
    """Everything a call says to its end; noted in ``answer`` as it comes, if one is given."""
    answer = answer or Answer()
    async for event in call:
        answer.take(event)
    return answer


async def store(stub: Any, data: bytes, metadata: Any = None) -> document_pb2.Document:
    """Upload a document in one go."""
    call = stub.Upload(sending(upload_messages(data)), metadata=metadata)
    documents = [event.stored.document async for event in call if event.HasField("stored")]
    document: document_pb2.Document
    [document] = documents
    return document


async def read_back(stub: Any, document_id: str) -> bytes:
    """The bytes of a stored document."""
    request = docs.ReadDocumentRequest(document_id=document_id)
    return b"".join([part.data async for part in stub.ReadDocument(request)])


def reason(error: grpc.aio.AioRpcError) -> str:
    """The reason of an error's ErrorInfo; empty when it has none."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return str(info.reason)
    return ""


class Uploading:
    """One Upload stream, driven by hand.

    Attributes:
        upload_id: from Accepted.
        acknowledged: bytes the server said it keeps.
        stored: the document, once it is.
    """

    def __init__(self, stub: Any, timeout_s: float | None = None) -> None:
        self.call = stub.Upload(timeout=timeout_s)
        self.upload_id = ""
        self.acknowledged = 0
        self.stored: document_pb2.Document | None = None

    async def open(self, upload_id: str = "") -> int:
        """Send the header; return where to go on."""
        await self.call.write(upload_header(upload_id))
        while not self.upload_id:
            await self.hear()
        return self.acknowledged

    async def send(self, data: bytes, start: int, end: int, chunk_bytes: int) -> None:
        """Send ``data[start:end]``."""
        for chunk in chunks(data[:end], chunk_bytes, start):
            await self.call.write(docs.UploadRequest(chunk=chunk))

    async def commit(self, data: bytes) -> None:
        """Say that it is complete."""
        await self.call.write(docs.UploadRequest(commit=commit(data)))

    async def hear(self) -> bool:
        """Take one event; False at the end of the stream.

        Raises:
            grpc.aio.AioRpcError: the call failed.
        """
        event = await self.call.read()
        if event is grpc.aio.EOF:
            return False
        match event.WhichOneof("event"):
            case "accepted":
                self.upload_id = event.accepted.upload_id
                self.acknowledged = event.accepted.committed_bytes
            case "ack":
                assert event.ack.committed_bytes > self.acknowledged
                self.acknowledged = event.ack.committed_bytes
            case "stored":
                self.stored = event.stored.document
        return True

    async def hear_to_the_end(self) -> None:
        """Take every event."""
        while await self.hear():
            pass

    async def finish(self, data: bytes) -> document_pb2.Document:
        """Commit; return the stored document."""
        await self.commit(data)
        await self.hear_to_the_end()
        assert self.stored is not None
        return self.stored
