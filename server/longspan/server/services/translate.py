"""Domain values to protobuf and back."""

from __future__ import annotations

from google.protobuf import duration_pb2, timestamp_pb2

from longspan.server.errors import InvalidRequest
from longspan.server.identity import UploadId
from longspan.server.kv.holdings import Held
from longspan.server.queue.job import Priority
from longspan.server.queue.output import AttentionUsage
from longspan.server.results.eligibility import Mode
from longspan.server.results.levels import Level
from longspan.server.store.records import StoredDocument
from longspan.server.tasks.answer import Citation
from longspan.server.tasks.method import Method
from longspan.server.tasks.task import (
    DEFAULT_CITATIONS,
    DEFAULT_SENTENCES,
    Ask,
    Prompt,
    Summarize,
    Task,
)
from longspan.server.text.spans import Span
from longspan.server.upload.desk import Header
from longspan.v1 import document_pb2, inference_service_pb2, upload_pb2

_PRIORITIES = {
    inference_service_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    inference_service_pb2.PRIORITY_BATCH: Priority.BATCH,
    inference_service_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    inference_service_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
}

_METHODS = {
    inference_service_pb2.METHOD_UNSPECIFIED: None,
    inference_service_pb2.METHOD_EXTRACTIVE: Method.EXTRACTIVE,
    inference_service_pb2.METHOD_GENERATIVE: Method.GENERATIVE,
}

_CACHE_MODES = {
    inference_service_pb2.CACHE_MODE_UNSPECIFIED: Mode.DEFAULT,
    inference_service_pb2.CACHE_MODE_OFF: Mode.OFF,
    inference_service_pb2.CACHE_MODE_FORCE: Mode.FORCE,
}

_CACHE_LEVELS = {
    None: inference_service_pb2.CACHE_LEVEL_UNSPECIFIED,
    Level.MEMORY: inference_service_pb2.CACHE_LEVEL_MEMORY,
    Level.REDIS: inference_service_pb2.CACHE_LEVEL_REDIS,
    Level.DISK: inference_service_pb2.CACHE_LEVEL_DISK,
    Level.FLIGHT: inference_service_pb2.CACHE_LEVEL_FLIGHT,
}


def document(record: StoredDocument, kv: Held | None = None) -> document_pb2.Document:
    """A stored document as callers see it; ``kv`` is where its pages lie, where that is known."""
    created = timestamp_pb2.Timestamp()
    created.FromMicroseconds(int(record.created_s * 1e6))
    return document_pb2.Document(
        document_id=record.document_id,
        title=record.title,
        media_type=record.media_type,
        size_bytes=record.size_bytes,
        size_chars=record.size_chars,
        sha256=record.sha256,
        tokens=record.tokens,
        passages=record.passages,
        create_time=created,
        kv=None if kv is None else held(kv),
    )


def held(value: Held) -> document_pb2.KvHolding:
    """Where pages lie."""
    return document_pb2.KvHolding(
        pool_pages=value.pool_pages,
        ram_pages=value.ram_pages,
        disk_pages=value.disk_pages,
        disk_bytes=value.disk_bytes,
        hits=value.hits,
        age=None if value.age_s is None else duration(value.age_s),
    )


def span(value: Span) -> document_pb2.ByteSpan:
    """A byte range."""
    return document_pb2.ByteSpan(start=value.start, end=value.end)


def duration(seconds: float) -> duration_pb2.Duration:
    """A length of time."""
    value = duration_pb2.Duration()
    value.FromMicroseconds(int(seconds * 1e6))
    return value


def citation(value: Citation) -> inference_service_pb2.Citation:
    """A verified quotation."""
    return inference_service_pb2.Citation(
        index=value.index,
        document_id=value.document_id,
        span=span(value.span),
        quote=value.quote,
        passage=span(value.passage),
        score=value.score,
    )


def attention(value: AttentionUsage | None) -> inference_service_pb2.AttentionUsage | None:
    """How a decoder read the documents, where it told."""
    if value is None:
        return None
    return inference_service_pb2.AttentionUsage(
        policy=value.policy, kv_bytes=value.kv_bytes, seen_share=value.seen_share
    )


def header(message: upload_pb2.UploadHeader) -> Header:
    """How the client opens an upload."""
    return Header(
        upload_id=UploadId(message.upload_id),
        title=message.title,
        media_type=message.media_type or "text/plain",
        declared_bytes=message.declared_bytes if message.HasField("declared_bytes") else None,
    )


def task(message: inference_service_pb2.Task) -> Task:
    """The task named by the client; zero counts mean the defaults.

    Raises:
        InvalidRequest: no task is named.
    """
    match message.WhichOneof("kind"):
        case "ask":
            return Ask(message.ask.question, message.ask.max_citations or DEFAULT_CITATIONS)
        case "summarize":
            return Summarize(message.summarize.max_sentences or DEFAULT_SENTENCES)
        case "prompt":
            return Prompt(message.prompt.text)
        case _:
            raise InvalidRequest("name one of ask, summarize, prompt", field="task")


def method(message: inference_service_pb2.Task) -> Method | None:
    """Who is to answer; None leaves it to the server.

    Raises:
        InvalidRequest: the number means nothing.
    """
    if message.method not in _METHODS:
        raise InvalidRequest(f"unknown method {message.method}", field="task.method")
    return _METHODS[message.method]


def cache_mode(message: inference_service_pb2.Task) -> Mode:
    """What the task says about answers given before.

    Raises:
        InvalidRequest: the number means nothing.
    """
    if message.cache not in _CACHE_MODES:
        raise InvalidRequest(f"unknown cache mode {message.cache}", field="task.cache")
    return _CACHE_MODES[message.cache]


def cache_use(level: Level | None, age_s: float) -> inference_service_pb2.CacheUse:
    """Where an answer was found, and how old it is; None is nowhere."""
    return inference_service_pb2.CacheUse(
        hit=level is not None, level=_CACHE_LEVELS[level], age=duration(max(0.0, age_s))
    )


def priority(message: inference_service_pb2.Task) -> Priority:
    """The task's priority.

    Raises:
        InvalidRequest: the number means nothing.
    """
    if message.priority not in _PRIORITIES:
        raise InvalidRequest(f"unknown priority {message.priority}", field="task.priority")
    return _PRIORITIES[message.priority]
