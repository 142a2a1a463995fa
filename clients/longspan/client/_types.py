"""What the server tells: plain frozen values, no protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NewType, TypeAlias

DocumentId = NewType("DocumentId", str)


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range ``[start, end)`` of a document's bytes.

    Raises:
        ValueError: not ``0 <= start <= end``.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"not a span: [{self.start}, {self.end})")

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class KvHolding:
    """Where KV pages of 256 tokens lie; one page may lie in several places.

    Attributes:
        pool_pages, ram_pages: of all workers together.
        hits: pages found instead of computed.
        age_s: since one of them was last used; None where none lies on disk.
    """

    pool_pages: int = 0
    ram_pages: int = 0
    disk_pages: int = 0
    disk_bytes: int = 0
    hits: int = 0
    age_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A stored document: immutable bytes under a handle that any number of questions share.

    Attributes:
        document_id: derived from the content: the same bytes have the same id.
        size_chars: Unicode code points of the text.
        sha256: lower-case hexadecimal digest of the bytes.
        tokens: 0 until the document has been indexed, or read by a decoder.
        passages: 0 until it has been indexed.
        create_time: in UTC.
        kv: where its KV pages lie; None where that was not asked for (only ``get`` and ``list``
            ask), or the server has no decoder, or a worker of it did not answer in time.
    """

    document_id: DocumentId
    title: str
    media_type: str
    size_bytes: int
    size_chars: int
    sha256: str
    tokens: int
    passages: int
    create_time: datetime
    kv: KvHolding | None = None


class Stage(Enum):
    """What the server is doing for a request."""

    UNKNOWN = "unknown"
    UPLOADING = "uploading"
    INDEXING = "indexing"
    PREFILLING = "prefilling"
    ANSWERING = "answering"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the work has come; at least once a second.

    Attributes:
        bytes_total: 0 until it is known.
        passages_cached: passages that came from a stored index.
        queue_position: jobs ahead of this request.
        tokens_prefilled: tokens of the prompt that the decoder has read, reused ones included.
        tokens_cached: tokens of the prompt whose KV pages were reused.
    """

    stage: Stage
    bytes_received: int = 0
    bytes_total: int = 0
    tokens: int = 0
    passages: int = 0
    passages_embedded: int = 0
    passages_cached: int = 0
    queue_position: int = 0
    tokens_prefilled: int = 0
    tokens_cached: int = 0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The next piece of what a reasoning model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A quotation that the server has compared with the document's bytes.

    Attributes:
        index: from 1; an extractive answer has it in brackets.
        span: the quoted bytes are exactly these.
        passage: the passage around the quotation.
        score: higher is better; comparable within one answer.
    """

    index: int
    document_id: DocumentId
    span: Span
    quote: str
    passage: Span
    score: float


@dataclass(frozen=True, slots=True)
class UnverifiedQuote:
    """A quotation in the answer that stands in none of the documents."""

    quote: str


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The decoder computed a part of a document again, since its KV pages were gone.

    Attributes:
        tokens: so many of the document, in whole pages.
    """

    document_id: DocumentId
    tokens: int


class FinishReason(Enum):
    """Why an answer ended."""

    UNKNOWN = "unknown"
    STOP = "stop"
    NO_ANSWER = "no_answer"
    # The answer reached max_tokens or the end of the model's context.
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a request cost, in tokens.

    Attributes:
        cached_tokens: those whose vectors or KV pages were reused.
        retries: times that work was repeated because a worker died.
        output_tokens: those that a decoder wrote, reasoning included.
    """

    document_tokens: int
    cached_tokens: int
    task_tokens: int
    retries: int
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time went, in seconds, by the server's clock.

    Attributes:
        first_delta_s: from the last byte, or the request's arrival, to the first text.
        per_token_s: between the tokens of a generated answer; 0 for an extractive one.
    """

    upload_s: float
    first_delta_s: float
    total_s: float
    per_token_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionUsage:
    """What an attention policy did with one request.

    Attributes:
        policy: its name.
        kv_bytes: KV memory that the request held at its end, pages shared with others included.
        seen_share: keys that its tokens saw, as a share of those that full attention sees, over
            all layers.
    """

    policy: str
    kv_bytes: int
    seen_share: float


class CacheLevel(Enum):
    """Where the server found an answer."""

    UNKNOWN = "unknown"
    MEMORY = "memory"
    REDIS = "redis"
    DISK = "disk"
    # An equal request that was running.
    FLIGHT = "flight"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUse:
    """What the server's result cache did for a request.

    Attributes:
        level: where the answer was found; None where it was made for this request.
        age_s: seconds since it was made.
    """

    level: CacheLevel | None
    age_s: float

    @property
    def hit(self) -> bool:
        """Whether the answer was found."""
        return self.level is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The last event of a successful request.

    Attributes:
        attention: how a decoder read the documents; None in an extractive answer.
        cache: None where the request could not use the result cache.
    """

    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    documents: tuple[Document, ...]
    model: str
    attention: AttentionUsage | None = None
    cache: CacheUse | None = None


Event: TypeAlias = (
    Progress | Rebuilt | Reasoning | TextDelta | Citation | UnverifiedQuote | Completed
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    Attributes:
        text: without the reasoning.
        reasoning: what a reasoning model thought before it answered.
        unverified: quotations in the text that stand in none of the documents.
    """

    text: str
    citations: tuple[Citation, ...]
    completed: Completed
    reasoning: str = ""
    unverified: tuple[UnverifiedQuote, ...] = ()
