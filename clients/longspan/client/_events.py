"""From wire messages to values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, TypeAlias

from google.protobuf import duration_pb2

from longspan.client._types import (
    AttentionUsage,
    CacheLevel,
    CacheUse,
    Citation,
    Completed,
    Document,
    DocumentId,
    Event,
    FinishReason,
    KvHolding,
    Progress,
    Reasoning,
    Rebuilt,
    Span,
    Stage,
    TextDelta,
    Timings,
    UnverifiedQuote,
    Usage,
)
from longspan.v1 import document_pb2, document_service_pb2, inference_service_pb2, upload_pb2


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server says where to send from."""

    upload_id: str
    committed_bytes: int
    max_chunk_bytes: int


@dataclass(frozen=True, slots=True)
class Ack:
    """Every byte before ``committed_bytes`` is safe."""

    committed_bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The document is complete, verified and indexed."""

    document: Document


Message: TypeAlias = Accepted | Ack | Stored | Event
Response: TypeAlias = (
    document_service_pb2.UploadResponse
    | inference_service_pb2.AnalyzeResponse
    | inference_service_pb2.GenerateResponse
)

_STAGES = {
    document_pb2.STAGE_UPLOADING: Stage.UPLOADING,
    document_pb2.STAGE_INDEXING: Stage.INDEXING,
    document_pb2.STAGE_PREFILLING: Stage.PREFILLING,
    document_pb2.STAGE_ANSWERING: Stage.ANSWERING,
}
_FINISH_REASONS = {
    inference_service_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    inference_service_pb2.FINISH_REASON_NO_ANSWER: FinishReason.NO_ANSWER,
    inference_service_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
}
_CACHE_LEVELS = {
    inference_service_pb2.CACHE_LEVEL_MEMORY: CacheLevel.MEMORY,
    inference_service_pb2.CACHE_LEVEL_REDIS: CacheLevel.REDIS,
    inference_service_pb2.CACHE_LEVEL_DISK: CacheLevel.DISK,
    inference_service_pb2.CACHE_LEVEL_FLIGHT: CacheLevel.FLIGHT,
}


def decode(response: Response) -> Message | None:
    """The event of one response; None for a kind that a newer server knows."""
    kind = response.WhichOneof("event")
    return None if kind is None else _DECODERS[kind](getattr(response, kind))


def document(message: document_pb2.Document) -> Document:
    """One document."""
    return Document(
        document_id=DocumentId(message.document_id),
        title=message.title,
        media_type=message.media_type,
        size_bytes=message.size_bytes,
        size_chars=message.size_chars,
        sha256=message.sha256,
        tokens=message.tokens,
        passages=message.passages,
        create_time=message.create_time.ToDatetime(tzinfo=UTC),
        kv=kv_holding(message.kv) if message.HasField("kv") else None,
    )


def kv_holding(message: document_pb2.KvHolding) -> KvHolding:
    """Where pages lie."""
    return KvHolding(
        pool_pages=message.pool_pages,
        ram_pages=message.ram_pages,
        disk_pages=message.disk_pages,
        disk_bytes=message.disk_bytes,
        hits=message.hits,
        age_s=_seconds(message.age) if message.HasField("age") else None,
    )


def _accepted(message: upload_pb2.Accepted) -> Accepted:
    return Accepted(message.upload_id, message.committed_bytes, message.max_chunk_bytes)


def _ack(message: upload_pb2.Ack) -> Ack:
    return Ack(message.committed_bytes)


def _stored(message: document_service_pb2.Stored) -> Stored:
    return Stored(document(message.document))


def _progress(message: document_pb2.Progress) -> Progress:
    return Progress(
        stage=_STAGES.get(message.stage, Stage.UNKNOWN),
        bytes_received=message.bytes_received,
        bytes_total=message.bytes_total,
        tokens=message.tokens,
        passages=message.passages,
        passages_embedded=message.passages_embedded,
        passages_cached=message.passages_cached,
        queue_position=message.queue_position,
        tokens_prefilled=message.tokens_prefilled,
        tokens_cached=message.tokens_cached,
    )


def _rebuilt(message: inference_service_pb2.Rebuilt) -> Rebuilt:
    return Rebuilt(DocumentId(message.document_id), message.tokens)


def _delta(message: inference_service_pb2.TextDelta) -> TextDelta:
    return TextDelta(message.text)


def _reasoning(message: inference_service_pb2.ReasoningDelta) -> Reasoning:
    return Reasoning(message.text)


def _unverified(message: inference_service_pb2.UnverifiedQuote) -> UnverifiedQuote:
    return UnverifiedQuote(message.quote)


def _citation(message: inference_service_pb2.Citation) -> Citation:
    return Citation(
        index=message.index,
        document_id=DocumentId(message.document_id),
        span=_span(message.span),
        quote=message.quote,
        passage=_span(message.passage),
        score=message.score,
    )


def _completed(message: inference_service_pb2.Completed) -> Completed:
    usage, timings = message.usage, message.timings
    return Completed(
        finish_reason=_FINISH_REASONS.get(message.finish_reason, FinishReason.UNKNOWN),
        usage=Usage(
            document_tokens=usage.document_tokens,
            cached_tokens=usage.cached_tokens,
            task_tokens=usage.task_tokens,
            retries=usage.retries,
            output_tokens=usage.output_tokens,
        ),
        timings=Timings(
            upload_s=_seconds(timings.upload),
            first_delta_s=_seconds(timings.first_delta),
            total_s=_seconds(timings.total),
            per_token_s=_seconds(timings.per_token),
        ),
        documents=tuple(document(one) for one in message.documents),
        model=message.model,
        attention=_attention(message.attention) if message.HasField("attention") else None,
        cache=_cache(message.cache) if message.HasField("cache") else None,
    )


def _attention(message: inference_service_pb2.AttentionUsage) -> AttentionUsage:
    return AttentionUsage(
        policy=message.policy, kv_bytes=message.kv_bytes, seen_share=message.seen_share
    )


def _cache(message: inference_service_pb2.CacheUse) -> CacheUse:
    level = _CACHE_LEVELS.get(message.level, CacheLevel.UNKNOWN) if message.hit else None
    return CacheUse(level=level, age_s=_seconds(message.age))


def _span(message: document_pb2.ByteSpan) -> Span:
    return Span(message.start, message.end)


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


_DECODERS: Mapping[str, Callable[[Any], Message]] = {
    "accepted": _accepted,
    "ack": _ack,
    "stored": _stored,
    "progress": _progress,
    "rebuilt": _rebuilt,
    "reasoning": _reasoning,
    "delta": _delta,
    "citation": _citation,
    "unverified": _unverified,
    "completed": _completed,
}
