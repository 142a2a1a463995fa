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
class Document:
    """A stored document: immutable bytes under a handle that any number of questions share.

    Attributes:
        document_id: derived from the content: the same bytes have the same id.
        size_chars: Unicode code points of the text.
        sha256: lower-case hexadecimal digest of the bytes.
        tokens, passages: 0 until the document has been indexed.
        create_time: in UTC.
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


class Stage(Enum):
    """What the server is doing for a request."""

    UNKNOWN = "unknown"
    UPLOADING = "uploading"
    INDEXING = "indexing"
    ANSWERING = "answering"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the work has come; at least once a second.

    Attributes:
        bytes_total: 0 until it is known.
        passages_cached: passages that came from a stored index.
        queue_position: jobs ahead of this request.
    """

    stage: Stage
    bytes_received: int = 0
    bytes_total: int = 0
    tokens: int = 0
    passages: int = 0
    passages_embedded: int = 0
    passages_cached: int = 0
    queue_position: int = 0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A quotation that the server has compared with the document's bytes.

    Attributes:
        index: the number that stands in brackets in the answer, from 1.
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


class FinishReason(Enum):
    """Why an answer ended."""

    UNKNOWN = "unknown"
    STOP = "stop"
    NO_ANSWER = "no_answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a request cost, in tokens; ``retries`` counts work repeated for a dead worker."""

    document_tokens: int
    cached_tokens: int
    task_tokens: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time went, in seconds, by the server's clock."""

    upload_s: float
    first_delta_s: float
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The last event of a successful request."""

    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    documents: tuple[Document, ...]
    model: str


Event: TypeAlias = Progress | TextDelta | Citation | Completed


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    text: str
    citations: tuple[Citation, ...]
    completed: Completed
