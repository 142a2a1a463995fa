"""Where a quotation stands in the documents, if it stands there."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from mmap import mmap
from typing import NamedTuple

from longspan.server.decoder.normal_form import normal_form
from longspan.server.decoder.normal_text import NormalText
from longspan.server.text.spans import Span

LONGEST_BYTES = 16 << 10
LEAST_CHARS = 2
_WINDOW_BYTES = 1 << 20
# What writers add at the ends of a quotation: an ellipsis, the sentence's own mark, emphasis.
_EDGES = " .,;:!?…*_。，；：！？、\"'"


class QuotePlace(NamedTuple):
    """Bytes ``span`` of document number ``document``, from 0."""

    document: int
    span: Span


class QuoteFinder:
    """Looks for the quotation's bytes first, then for its normal form (``normal_form``).

    The normal form may also be had from the quotation's composed or decomposed form (a
    tokenizer may have composed what the document decomposes), and without the punctuation at
    its ends: the span is that of the rest. Nothing else is ever found.

    Blocking, and not for two threads at once. A document is normalised when the first quotation
    needs it; its normal form is kept and takes about as many bytes as the document.

    Args:
        documents: UTF-8, as bytes or as a mapped file.
    """

    def __init__(self, documents: Sequence[bytes | mmap]) -> None:
        self._documents = documents
        self._normal: dict[int, NormalText] = {}

    def find(self, quote: str) -> QuotePlace | None:
        """The first place of ``quote``; None where it stands nowhere or is too long or short."""
        quote = quote.strip()
        if len(quote) < LEAST_CHARS or len(quote.encode()) > LONGEST_BYTES:
            return None
        return self._find_bytes(quote.encode()) or self._find_normal(quote)

    def _find_bytes(self, needle: bytes) -> QuotePlace | None:
        for number, document in enumerate(self._documents):
            place = _find(document, needle)
            if place >= 0:
                return QuotePlace(number, Span(place, place + len(needle)))
        return None

    def _find_normal(self, quote: str) -> QuotePlace | None:
        for wanted in dict.fromkeys(_normal_forms(quote)):
            for number in range(len(self._documents)):
                span = self._normal_text(number).find(wanted)
                if span is not None:
                    return QuotePlace(number, span)
        return None

    def _normal_text(self, number: int) -> NormalText:
        if number not in self._normal:
            self._normal[number] = NormalText(self._documents[number])
        return self._normal[number]


def _find(document: bytes | mmap, needle: bytes) -> int:
    """``bytes.find`` is linear in the worst case; that of a mapped file is not."""
    for start in range(0, len(document), _WINDOW_BYTES):
        place = document[start : start + _WINDOW_BYTES + len(needle) - 1].find(needle)
        if place >= 0:
            return start + place
    return -1


def _normal_forms(quote: str) -> Iterator[str]:
    """What may stand in a document's normal form, the closest to ``quote`` first."""
    spellings = (quote, unicodedata.normalize("NFC", quote), unicodedata.normalize("NFD", quote))
    for ends in ("", _EDGES):
        for spelling in spellings:
            wanted = normal_form(spelling).strip(" " + ends)
            if len(wanted) >= LEAST_CHARS:
                yield wanted
