"""The finished index of one document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longspan.server.text.spans import Span


@dataclass(frozen=True, slots=True, eq=False)
class PassageIndex:
    """Passages of one document: where they lie, their tokens and their vectors.

    ``sentences`` and ``ids`` are flat; passage ``i`` has
    ``sentences[first_sentence[i]:first_sentence[i + 1]]`` and
    ``terms[first_term[i]:first_term[i + 1]]``.

    Attributes:
        spans: int64 [passages, 2], byte offsets.
        sentences: int64 [sentences, 2], byte offsets.
        first_sentence: int64 [passages + 1].
        terms: uint32 [terms], hashed words.
        first_term: int64 [passages + 1].
        vectors: float32 [passages, dimension], unit length.
        tokens: tokens of the document.
    """

    spans: NDArray[np.int64]
    sentences: NDArray[np.int64]
    first_sentence: NDArray[np.int64]
    terms: NDArray[np.uint32]
    first_term: NDArray[np.int64]
    vectors: NDArray[np.float32]
    tokens: int

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def size_bytes(self) -> int:
        """Memory held by the arrays."""
        arrays = (self.spans, self.sentences, self.first_sentence, self.terms, self.first_term)
        return sum(array.nbytes for array in arrays) + self.vectors.nbytes

    def span(self, passage: int) -> Span:
        """Where a passage lies."""
        start, end = self.spans[passage]
        return Span(int(start), int(end))

    def sentence_spans(self, passage: int) -> Iterator[Span]:
        """Where the sentences of a passage lie."""
        first, last = self.first_sentence[passage : passage + 2]
        for start, end in self.sentences[first:last]:
            yield Span(int(start), int(end))
