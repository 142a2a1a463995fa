"""Which passages are about the question: vectors and words, fused. Pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longspan.server.index.passage_index import PassageIndex

K1, B = 1.2, 0.75
WORD_WEIGHT = 0.35


def rank(
    index: PassageIndex, question_ids: NDArray[np.uint32], question: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Score every passage, higher is better.

    Args:
        index: the document's passages.
        question_ids: the question's tokens, without special ones.
        question: its unit vector, [dimension].

    Returns:
        float64 [passages]: cosine plus the word score scaled to at most ``WORD_WEIGHT``.
    """
    cosine = (index.vectors @ question).astype(np.float64)
    words = bm25(index, question_ids)
    best = words.max(initial=0.0)
    return cosine + (WORD_WEIGHT / best) * words if best > 0 else cosine


def bm25(index: PassageIndex, question_ids: NDArray[np.uint32]) -> NDArray[np.float64]:
    """BM25 over word pieces (Robertson and Zaragoza, 2009), float64 [passages]."""
    lengths = np.diff(index.first_token).astype(np.float64)
    norm: NDArray[np.float64] = K1 * (1 - B + B * lengths / max(len(index.ids) / max(len(index), 1), 1.0))
    scores: NDArray[np.float64] = np.zeros(len(index))
    for token in np.unique(question_ids):
        counts = _counts(index, int(token))
        having = np.count_nonzero(counts)
        idf = np.log1p((len(index) - having + 0.5) / (having + 0.5))
        scores += idf * counts * (K1 + 1) / (counts + norm)
    return scores


def _counts(index: PassageIndex, token: int) -> NDArray[np.int64]:
    positions = np.flatnonzero(index.ids == token)
    passages = np.searchsorted(index.first_token, positions, side="right") - 1
    return np.bincount(passages, minlength=len(index))


def central(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """How close each row is to the mean of all, float64 [rows]; what a text is mostly about."""
    mean = vectors.mean(axis=0)
    norm = float(np.linalg.norm(mean))
    return (vectors @ (mean / norm if norm > 0 else mean)).astype(np.float64)


def diverse(
    scores: NDArray[np.float64], vectors: NDArray[np.float32], count: int, *, weight: float = 0.6
) -> list[int]:
    """Pick ``count`` rows by maximal marginal relevance (Carbonell and Goldstein, 1998).

    Args:
        scores: relevance, [rows].
        vectors: unit vectors, [rows, dimension].
        count: rows to pick at most.
        weight: of relevance against novelty, 0 to 1.
    """
    chosen: list[int] = []
    redundancy = np.zeros(len(scores))
    open_rows = np.ones(len(scores), bool)
    while len(chosen) < min(count, len(scores)):
        value = np.where(open_rows, weight * scores - (1 - weight) * redundancy, -np.inf)
        best = int(value.argmax())
        chosen.append(best)
        open_rows[best] = False
        redundancy = np.maximum(redundancy, vectors @ vectors[best])
    return chosen
