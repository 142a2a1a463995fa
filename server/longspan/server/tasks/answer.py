"""What an answer is made of."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.server.identity import DocumentId
from longspan.server.text.spans import Span


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """The next piece of what a reasoning model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class UnverifiedQuote:
    """A quotation in the answer that stands in none of the documents."""

    quote: str


@dataclass(frozen=True, slots=True)
class Citation:
    """A quotation that equals the document's bytes at ``span``."""

    index: int
    document_id: DocumentId
    span: Span
    quote: str
    passage: Span
    score: float


AnswerEvent = TextDelta | Citation
GeneratedEvent = AnswerEvent | ReasoningDelta | UnverifiedQuote


def line_with_citation(citation: Citation) -> TextDelta:
    """The quotation as one line of the answer, with its number."""
    return TextDelta(f"“{' '.join(citation.quote.split())}” [{citation.index}]\n")
