"""From values to wire messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from longspan.client._generation import Generation
from longspan.client._tasks import Ask, CacheMode, Method, Priority, Prompt, Summarize, Task
from longspan.client._types import Document
from longspan.client._upload import Chunk, Commit, Open, Part
from longspan.v1 import document_pb2, document_service_pb2, inference_service_pb2, upload_pb2

Documents: TypeAlias = str | Document | Sequence[str | Document]
Request: TypeAlias = document_service_pb2.UploadRequest | inference_service_pb2.AnalyzeRequest

_PRIORITIES = {
    None: inference_service_pb2.PRIORITY_UNSPECIFIED,
    Priority.BATCH: inference_service_pb2.PRIORITY_BATCH,
    Priority.NORMAL: inference_service_pb2.PRIORITY_NORMAL,
    Priority.INTERACTIVE: inference_service_pb2.PRIORITY_INTERACTIVE,
}
_METHODS = {
    Method.EXTRACTIVE: inference_service_pb2.METHOD_EXTRACTIVE,
    Method.GENERATIVE: inference_service_pb2.METHOD_GENERATIVE,
}
_CACHE_MODES = {
    CacheMode.DEFAULT: inference_service_pb2.CACHE_MODE_UNSPECIFIED,
    CacheMode.OFF: inference_service_pb2.CACHE_MODE_OFF,
    CacheMode.FORCE: inference_service_pb2.CACHE_MODE_FORCE,
}


class Envelope(Protocol):
    """Wraps the parts of an upload for one of the two calls that take them."""

    def wrap(self, part: Part) -> Request:
        """The request that carries ``part``."""
        ...


class Described(Protocol):
    """A source that knows something about its document."""

    title: str
    media_type: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Heading:
    """What is said about a document before its bytes."""

    title: str
    media_type: str
    size_bytes: int | None

    @classmethod
    def of(cls, described: Described, title: str | None, media_type: str | None) -> Heading:
        """What the caller says, or else what the source says."""
        return cls(
            described.title if title is None else title,
            media_type or described.media_type,
            described.size_bytes,
        )

    def message(self, upload_id: str) -> upload_pb2.UploadHeader:
        """The header that opens or resumes."""
        return upload_pb2.UploadHeader(
            upload_id=upload_id,
            title=self.title,
            media_type=self.media_type,
            # An empty document is refused by its own name at the commit.
            declared_bytes=self.size_bytes or None,
        )


@dataclass(frozen=True, slots=True)
class UploadEnvelope:
    """For ``DocumentService.Upload``."""

    heading: Heading

    def wrap(self, part: Part) -> document_service_pb2.UploadRequest:
        """The request that carries ``part``."""
        match part:
            case Open(upload_id):
                return document_service_pb2.UploadRequest(header=self.heading.message(upload_id))
            case Chunk():
                return document_service_pb2.UploadRequest(chunk=_chunk(part))
            case Commit():
                return document_service_pb2.UploadRequest(commit=_commit(part))


@dataclass(frozen=True, slots=True)
class AnalyzeEnvelope:
    """For ``InferenceService.Analyze``."""

    heading: Heading
    task: inference_service_pb2.Task

    def wrap(self, part: Part) -> inference_service_pb2.AnalyzeRequest:
        """The request that carries ``part``."""
        match part:
            case Open(upload_id):
                header = inference_service_pb2.AnalyzeHeader(
                    upload=self.heading.message(upload_id), task=self.task
                )
                return inference_service_pb2.AnalyzeRequest(header=header)
            case Chunk():
                return inference_service_pb2.AnalyzeRequest(chunk=_chunk(part))
            case Commit():
                return inference_service_pb2.AnalyzeRequest(commit=_commit(part))


def generate(
    documents: Documents, task: inference_service_pb2.Task
) -> inference_service_pb2.GenerateRequest:
    """One task on stored documents."""
    return inference_service_pb2.GenerateRequest(document_ids=document_ids(documents), task=task)


def read(document_id: str, start: int, end: int) -> document_service_pb2.ReadDocumentRequest:
    """A range of a document; an ``end`` of 0 is the document's end."""
    return document_service_pb2.ReadDocumentRequest(
        document_id=document_id, span=document_pb2.ByteSpan(start=start, end=end)
    )


def document_ids(documents: Documents) -> list[str]:
    """The ids of one or more documents."""
    if isinstance(documents, str | Document):
        return [document_id(documents)]
    return [document_id(one) for one in documents]


def document_id(document: str | Document) -> str:
    """The id of one document."""
    return document.document_id if isinstance(document, Document) else document


def task_message(task: Task, *, seed: int) -> inference_service_pb2.Task:
    """The task; what is None is left to the server, but for the seed.

    Args:
        seed: for a generated answer where the caller names none. A call sends one always, so
            that a repeated request gets the words that were delivered before it broke.

    Raises:
        ValueError: there is no such method or cache mode.
    """
    message = inference_service_pb2.Task(
        priority=_PRIORITIES[task.priority], cache=_CACHE_MODES[CacheMode(task.cache)]
    )
    if task.method is not None:
        message.method = _METHODS[Method(task.method)]
    if task.method != Method.EXTRACTIVE:
        message.generation.CopyFrom(_generation(task.generation or Generation(), seed))
    match task:
        case Ask():
            message.ask.question = task.question
            message.ask.max_citations = task.max_citations or 0
        case Summarize():
            message.summarize.SetInParent()
            message.summarize.max_sentences = task.max_sentences or 0
        case Prompt():
            message.prompt.text = task.text
    return message


def _generation(options: Generation, seed: int) -> inference_service_pb2.GenerationOptions:
    return inference_service_pb2.GenerationOptions(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        seed=seed if options.seed is None else options.seed,
        any_seed=options.seed is None,
        stop=[_stop(one) for one in options.stop],
        json_schema=options.json_schema,  # type: ignore[arg-type]  # a text since it was made
        regex=options.regex,
        attention=options.attention,
    )


def _stop(stop: str | int) -> inference_service_pb2.StopCondition:
    if isinstance(stop, str):
        return inference_service_pb2.StopCondition(text=stop)
    return inference_service_pb2.StopCondition(token=stop)


def _chunk(part: Chunk) -> upload_pb2.Chunk:
    return upload_pb2.Chunk(offset=part.offset, data=part.data)


def _commit(part: Commit) -> upload_pb2.Commit:
    return upload_pb2.Commit(length=part.length, sha256=part.sha256)
