"""What a request may say about sampling."""

from __future__ import annotations

import math
from typing import Any

import pytest

from longspan.worker.sampling.params import STOP_TEXTS, SamplingParams


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", -1),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("seed", -1),
        ("seed", 1 << 64),
        ("stop_texts", ("",)),
        ("stop_texts", ("x" * 2000,)),
        ("stop_texts", ("x",) * (STOP_TEXTS + 1)),
        ("stop_tokens", (-1,)),
        ("answer_begins", "x" * 2000),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: object) -> None:
    """Every field is checked, and the error says which one is wrong."""
    arguments: dict[str, Any] = {"max_tokens": 1, field: value}
    with pytest.raises(ValueError, match=field):
        SamplingParams(**arguments)


def test_the_edges_of_the_ranges_are_taken() -> None:
    """Nothing that has a meaning is refused."""
    params = SamplingParams(
        max_tokens=0, temperature=0.0, top_k=0, top_p=1.0, min_p=1.0, seed=(1 << 64) - 1
    )
    assert params.greedy
    assert not SamplingParams(max_tokens=1, temperature=1e-6).greedy
