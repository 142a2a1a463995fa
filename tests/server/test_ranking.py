"""The ranking compared with naive implementations of the same formulas."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from longspan.server.index.passage_index import PassageIndex
from longspan.server.tasks.ranking import K1, B, central, diverse, overlap, word_scores

Passages = list[list[int]]
PASSAGES = st.lists(st.lists(st.integers(0, 6), max_size=8), max_size=8)
QUESTION = st.lists(st.integers(0, 8), max_size=6)


def index_of(passages: Passages) -> PassageIndex:
    """An index that knows words alone."""
    starts = np.cumsum([0, *map(len, passages)])
    flat = [term for passage in passages for term in passage]
    spans = np.zeros((len(passages), 2), np.int64)
    vectors = np.zeros((len(passages), 2), np.float32)
    return PassageIndex(spans, spans, starts, np.array(flat, np.uint32), starts, vectors, 0)


def naive_bm25(passages: Passages, question: list[int]) -> list[float]:
    """Robertson and Zaragoza (2009), term by term, scaled by the best."""
    mean = max(sum(map(len, passages)) / max(len(passages), 1), 1.0)
    scores = []
    for passage in passages:
        score = 0.0
        for term in set(question):
            having = sum(term in other for other in passages)
            idf = math.log(1 + (len(passages) - having + 0.5) / (having + 0.5))
            count = passage.count(term)
            norm = K1 * (1 - B + B * len(passage) / mean)
            score += idf * count * (K1 + 1) / (count + norm)
        scores.append(score)
    best = max(scores, default=0.0)
    return [score / best for score in scores] if best > 0 else scores


@settings(deadline=None)
@given(passages=PASSAGES, question=QUESTION)
def test_word_scores_are_bm25(passages: Passages, question: list[int]) -> None:
    scores = word_scores(index_of(passages), np.array(question, np.uint32))
    np.testing.assert_allclose(scores, naive_bm25(passages, question), atol=1e-12)


def naive_mmr(
    scores: list[float], vectors: NDArray[np.float32], count: int, weight: float
) -> list[int]:
    """Carbonell and Goldstein (1998): each pick compares with all picks before it."""
    chosen: list[int] = []
    while len(chosen) < min(count, len(scores)):
        best, best_value = -1, -math.inf
        for row, score in enumerate(scores):
            if row in chosen:
                continue
            likeness = [float(vectors[row] @ vectors[other]) for other in chosen]
            value = weight * score - (1 - weight) * max([0.0, *likeness])
            if value > best_value + 1e-9:
                best, best_value = row, value
        chosen.append(best)
    return chosen


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(0, 12),
    count=st.integers(0, 15),
    weight=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
)
def test_diverse_rows_are_chosen_by_marginal_relevance(
    seed: int, rows: int, count: int, weight: float
) -> None:
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(rows, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = chance.normal(size=rows)
    chosen = diverse(scores, vectors, count, weight=weight)
    assert chosen == naive_mmr(scores.tolist(), vectors, count, weight)
    assert len(set(chosen)) == len(chosen)


def test_a_repeated_row_is_chosen_last() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert diverse(np.array([1.0, 0.99, 0.5]), vectors, 3) == [0, 2, 1]


@given(asked=QUESTION, had=QUESTION)
def test_overlap_is_the_part_of_the_question_that_is_there(
    asked: list[int], had: list[int]
) -> None:
    found = overlap(np.array(asked, np.uint32), np.array(had, np.uint32))
    expected = len(set(asked) & set(had)) / len(set(asked)) if asked else 0.0
    assert math.isclose(found, expected)


def test_the_central_row_is_the_one_nearest_to_the_mean() -> None:
    angles = np.array([0.0, 0.4, 0.5, 0.6, 1.1])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert int(central(vectors).argmax()) == 2
    opposed = np.array([[1, 0], [-1, 0]], np.float32)
    assert np.isfinite(central(opposed)).all()
