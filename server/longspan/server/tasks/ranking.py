"""Which passages are about the question: vectors and words, fused. Pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longspan.server.index.passage_index import PassageIndex

Scores = NDArray[np.float64]
Vectors = NDArray[np.float32]

K1, B = 1.2, 0.75


def word_scores(index: PassageIndex, question_terms: NDArray[np.uint32]) -> Scores:
    """BM25 (Robertson and Zaragoza, 2009) scaled to [0, 1] within the document, [passages]."""
    lengths = np.diff(index.first_term).astype(np.float64)
    mean = max(len(index.terms) / max(len(index), 1), 1.0)
    norm: Scores = K1 * (1 - B + B * lengths / mean)
    scores: Scores = np.zeros(len(index))
    for term in np.unique(question_terms):
        counts = _counts(index, term)
        having = np.count_nonzero(counts)
        idf = np.log1p((len(index) - having + 0.5) / (having + 0.5))
        scores += idf * counts * (K1 + 1) / (counts + norm)
    best = scores.max(initial=0.0)
    return scores / best if best > 0 else scores


def _counts(index: PassageIndex, term: np.uint32) -> NDArray[np.int64]:
    positions = np.flatnonzero(index.terms == term)
    passages = np.searchsorted(index.first_term, positions, side="right") - 1
    return np.bincount(passages, minlength=len(index))


def overlap(question_terms: NDArray[np.uint32], sentence_terms: NDArray[np.uint32]) -> float:
    """Part of the question's terms that the sentence has, 0 to 1."""
    asked = np.unique(question_terms)
    shared = np.isin(asked, sentence_terms)
    return float(shared.mean()) if len(asked) else 0.0


def central(vectors: Vectors) -> Scores:
    """How close each row is to the mean of all, [rows]; what a text is mostly about."""
    mean: Vectors = vectors.mean(axis=0)
    norm = float(np.linalg.norm(mean))
    return (vectors @ (mean / norm if norm > 0 else mean)).astype(np.float64)


def diverse(scores: Scores, vectors: Vectors, count: int, *, weight: float = 0.6) -> list[int]:
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
