"""Documents of the recall task hold their records, and nothing else that looks like one."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.recall.documents import RECORD_TOKENS, document, filler
from benchmarks.recall.vocabulary import ASK, END, FILLER, KEYS, SIZE, VALUES, words
from hypothesis import given
from hypothesis import strategies as st


@given(records=st.integers(1, 64), spare=st.integers(0, 500), seed=st.integers(0, 2**32))
def test_every_record_stands_where_it_is_said_to(records: int, spare: int, seed: int) -> None:
    tokens = records * RECORD_TOKENS + spare
    said = document(tokens, records, np.random.default_rng(seed))
    assert len(said.tokens) == tokens
    assert len(set(said.keys.tolist())) == records
    for record, place in enumerate(said.places):
        text = said.tokens[place : place + RECORD_TOKENS]
        assert text[0] == said.keys[record]
        assert text[1:].tolist() == said.answer(record).tolist()
        assert text[-1] == END
        assert said.question(record).tolist() == [ASK, text[0]]


@given(records=st.integers(1, 64), spare=st.integers(0, 500), seed=st.integers(0, 2**32))
def test_keys_and_ends_belong_to_records_alone(records: int, spare: int, seed: int) -> None:
    said = document(records * RECORD_TOKENS + spare, records, np.random.default_rng(seed))
    of_keys = np.isin(said.tokens, list(KEYS))
    assert of_keys.sum() == (said.tokens == END).sum() == records
    assert ASK not in said.tokens


def test_filler_holds_loose_values_too() -> None:
    text = filler(5000, np.random.default_rng(0))
    loose = np.isin(text, list(VALUES)).mean()
    assert 0.005 < loose < 0.02
    assert np.isin(text, [*VALUES, *FILLER]).all()


def test_what_does_not_fit_is_refused() -> None:
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="do not fit"):
        document(RECORD_TOKENS * 3 - 1, 3, random)
    with pytest.raises(ValueError, match="do not fit"):
        document(100_000, len(KEYS) + 1, random)


def test_every_token_has_a_word() -> None:
    assert len(words()) == len(set(words())) == SIZE
