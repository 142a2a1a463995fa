"""A token bucket lets through what it promises, and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.server.rates.token_bucket import TokenBucket

RATES = st.floats(0.01, 1000)
SIZES = st.floats(0.5, 500)
# Steps of time and amounts; some clocks go back.
STEPS = st.lists(st.tuples(st.floats(-5, 60), st.floats(0.01, 100)), max_size=50)
CLOSE = 1e-6


@given(RATES, SIZES, STEPS)
def test_never_more_than_the_capacity_and_what_came_back(
    rate: float, capacity: float, steps: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate, capacity, now_s=0.0)
    now_s = latest_s = taken = 0.0
    for elapsed_s, amount in steps:
        now_s += elapsed_s
        latest_s = max(latest_s, now_s)
        if bucket.take(amount, now_s) == 0.0:
            taken += amount
        assert taken <= (capacity + rate * latest_s) * (1 + CLOSE)


@given(RATES, SIZES, STEPS, st.floats(0.01, 1.0))
def test_whoever_waits_as_long_as_told_is_let_through(
    rate: float, capacity: float, steps: list[tuple[float, float]], share: float
) -> None:
    bucket = TokenBucket(rate, capacity, now_s=0.0)
    now_s = 0.0
    for elapsed_s, amount in steps:
        now_s += max(0.0, elapsed_s)
        bucket.take(amount, now_s)
    wanted = share * capacity
    wait_s = bucket.take(wanted, now_s)
    if wait_s > 0:
        assert bucket.take(wanted, now_s + wait_s * (1 - 0.01)) > 0
        assert bucket.take(wanted, now_s + wait_s * (1 + CLOSE) + CLOSE) == 0.0


@given(RATES, SIZES, st.lists(st.floats(0.01, 1000), min_size=1, max_size=50))
def test_debts_are_paid_at_the_rate(rate: float, capacity: float, amounts: list[float]) -> None:
    """One that waits after every step sends the capacity at once, and the rest at the rate."""
    bucket, now_s = TokenBucket(rate, capacity, now_s=0.0), 0.0
    for amount in amounts:
        now_s += bucket.owe(amount, now_s)
    expected_s = max(0.0, (sum(amounts) - capacity) / rate)
    assert now_s == pytest.approx(expected_s, rel=CLOSE, abs=CLOSE)


@pytest.mark.parametrize(("rate", "capacity"), [(0, 1), (1, 0), (-1, 1), (float("nan"), 1)])
def test_what_is_no_bucket_is_refused(rate: float, capacity: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        TokenBucket(rate, capacity, 0.0)
