"""Passages: runs of whole sentences that the encoder reads at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longspan.server.text.sentences import Kind, Sentence, SentenceSplitter
from longspan.server.text.spans import Span
from longspan.server.text.terms import terms
from longspan.server.text.tokeniser import TokenPiece

Ids = NDArray[np.uint32]

CONTEXT_TOKENS = 24
# A passage this full ends with its block instead of taking in the next one.
FULL_ENOUGH = 0.5
_NONE: Ids = np.zeros(0, np.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """A run of sentences.

    Attributes:
        span: from the first sentence's start to the last one's end.
        sentences: where they lie.
        ids: uint32 [tokens], what the encoder reads: the heading above (or the head row of
            the table), unless the passage starts with it, then the passage.
        terms: uint32 [terms], the words of its sentences for the search by words.
    """

    span: Span
    sentences: tuple[Span, ...]
    ids: Ids
    terms: NDArray[np.uint32]


class PassageCutter:
    """Joins tokens and sentences to passages of at most ``max_tokens`` tokens.

    A heading starts a passage; a passage that is full enough ends with its block. A
    sentence longer than a passage is cut between tokens.
    """

    def __init__(self, *, max_tokens: int) -> None:
        if max_tokens <= 2 * CONTEXT_TOKENS:
            raise ValueError(f"a passage needs more than {2 * CONTEXT_TOKENS} tokens")
        self._max_tokens = max_tokens
        self._splitter = SentenceSplitter()
        self._tokens = _TokenWindow()
        self._heading: Ids = _NONE
        self._head_row: Ids = _NONE
        self._context: Ids = _NONE
        self._kind = Kind.PROSE
        self._open: list[tuple[Span, Ids]] = []
        self._open_terms: list[NDArray[np.uint32]] = []
        self._open_tokens = 0

    def feed(self, piece: TokenPiece) -> list[Passage]:
        """Take the next piece; its offsets are needed."""
        assert piece.offsets is not None
        self._tokens.add(piece.ids, piece.offsets)
        return self._take(self._splitter.feed(piece.text))

    def finish(self) -> list[Passage]:
        """The remaining passages. The cutter is used up."""
        return self._take(self._splitter.finish()) + self._close()

    def _take(self, sentences: list[Sentence]) -> list[Passage]:
        found: list[Passage] = []
        for sentence in sentences:
            ids, ends = self._tokens.take(sentence.start_char, sentence.end_char)
            if len(ids):
                found += self._add(sentence, ids, ends)
        return found

    def _add(self, sentence: Sentence, ids: Ids, ends: NDArray[np.int32]) -> list[Passage]:
        found = self._enter(sentence, ids)
        words = terms(sentence.text)
        for span, part in self._fitting(sentence, ids, ends):
            if self._open and self._open_tokens + len(part) > self._room:
                found += self._close()
            if not self._open:
                self._context = self._context_of(sentence, ids)
            self._open.append((span, part))
            self._open_terms.append(words)
            self._open_tokens += len(part)
        if sentence.ends_block and self._open_tokens >= FULL_ENOUGH * self._max_tokens:
            found += self._close()
        return found

    def _enter(self, sentence: Sentence, ids: Ids) -> list[Passage]:
        """Note headings and tables; a heading after other text closes the passage."""
        found: list[Passage] = []
        if sentence.kind is Kind.HEADING:
            if self._kind is not Kind.HEADING:
                found = self._close()
            self._heading = ids[:CONTEXT_TOKENS]
        if sentence.kind is not Kind.ROW:
            self._head_row = _NONE
        elif not len(self._head_row):
            self._head_row = ids[:CONTEXT_TOKENS]
        self._kind = sentence.kind
        return found

    def _context_of(self, sentence: Sentence, ids: Ids) -> Ids:
        if sentence.kind is Kind.HEADING:
            return _NONE
        is_head_row = np.array_equal(self._head_row, ids[:CONTEXT_TOKENS])
        return np.concatenate([self._heading, _NONE if is_head_row else self._head_row])

    @property
    def _room(self) -> int:
        return self._max_tokens - len(self._context)

    def _fitting(
        self, sentence: Sentence, ids: Ids, ends: NDArray[np.int32]
    ) -> list[tuple[Span, Ids]]:
        """The sentence, in parts where it is longer than any passage."""
        size = self._max_tokens - 2 * CONTEXT_TOKENS
        if len(ids) <= size:
            return [(Span(sentence.start_byte, sentence.end_byte), ids)]
        parts, start_byte, start_char = [], sentence.start_byte, 0
        for first in range(0, len(ids), size):
            last = min(first + size, len(ids))
            end_char = len(sentence.text)
            if last < len(ids):
                end_char = int(ends[last - 1]) - sentence.start_char
            end_byte = start_byte + len(sentence.text[start_char:end_char].encode("utf-8"))
            parts.append((Span(start_byte, end_byte), ids[first:last]))
            start_byte, start_char = end_byte, end_char
        return [(span, part) for span, part in parts if span.end > span.start]

    def _close(self) -> list[Passage]:
        if not self._open:
            return []
        spans = tuple(span for span, _ in self._open)
        ids = np.concatenate([self._context, *(part for _, part in self._open)])
        words = np.concatenate(self._open_terms)
        self._open, self._open_terms, self._open_tokens = [], [], 0
        return [Passage(Span(spans[0].start, spans[-1].end), spans, ids, words)]


class _TokenWindow:
    """Tokens that no sentence has claimed yet."""

    def __init__(self) -> None:
        self._ids = _NONE
        self._offsets = np.zeros((0, 2), np.int32)
        self._first = 0

    def add(self, ids: Ids, offsets: NDArray[np.int32]) -> None:
        """Append the tokens of a piece."""
        self._ids = np.concatenate([self._ids[self._first :], ids])
        self._offsets = np.concatenate([self._offsets[self._first :], offsets])
        self._first = 0

    def take(self, start_char: int, end_char: int) -> tuple[Ids, NDArray[np.int32]]:
        """Ids and end offsets of the tokens that touch ``[start_char, end_char)``."""
        starts, ends = self._offsets[:, 0], self._offsets[:, 1]
        first = max(int(np.searchsorted(ends, start_char, "right")), self._first)
        last = max(int(np.searchsorted(starts, end_char, "left")), first)
        self._first = last
        return self._ids[first:last], ends[first:last]
