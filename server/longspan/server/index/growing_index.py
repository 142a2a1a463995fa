"""An index under construction: passages go in, batches for the encoder come out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from longspan.server.index.passage_index import PassageIndex
from longspan.server.text.passages import Passage


class GrowingIndex:
    """Collects passages in order; hands each to the encoder once.

    Attributes:
        embedded: passages whose vectors are here.
    """

    def __init__(self) -> None:
        self._passages: list[Passage] = []
        self._vectors: dict[int, NDArray[np.float32]] = {}
        self._taken = 0
        self.embedded = 0

    def __len__(self) -> int:
        return len(self._passages)

    @property
    def waiting(self) -> int:
        """Passages that no batch has taken yet."""
        return len(self._passages) - self._taken

    def add(self, passages: Sequence[Passage]) -> None:
        """Append passages in document order."""
        self._passages.extend(passages)

    def take(self, *, max_texts: int, max_tokens: int) -> tuple[int, list[NDArray[np.uint32]]]:
        """The next batch: its first passage's number and the token ids of each passage."""
        first, tokens = self._taken, 0
        batch: list[NDArray[np.uint32]] = []
        for passage in self._passages[first : first + max_texts]:
            tokens += len(passage.ids)
            if batch and tokens > max_tokens:
                break
            batch.append(passage.ids)
        self._taken += len(batch)
        return first, batch

    def put(self, first: int, vectors: NDArray[np.float32]) -> None:
        """Store a batch's vectors, [texts, dimension]."""
        self._vectors[first] = vectors
        self.embedded += len(vectors)

    def freeze(self, *, tokens: int, dimension: int) -> PassageIndex:
        """The finished index; every passage must have its vector."""
        assert self.embedded == len(self._passages)
        sentences = [span for passage in self._passages for span in passage.sentences]
        batches = [self._vectors[first] for first in sorted(self._vectors)]
        return PassageIndex(
            spans=_pairs([passage.span for passage in self._passages]),
            sentences=_pairs(sentences),
            first_sentence=_starts([len(passage.sentences) for passage in self._passages]),
            terms=np.concatenate([np.zeros(0, np.uint32), *(p.terms for p in self._passages)]),
            first_term=_starts([len(passage.terms) for passage in self._passages]),
            vectors=np.concatenate([np.zeros((0, dimension), np.float32), *batches]),
            tokens=tokens,
        )


def _pairs(spans: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(spans, np.int64).reshape(-1, 2)


def _starts(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
