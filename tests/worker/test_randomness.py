"""Random numbers by seed and index."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.sampling.randomness import uniform

KNOWN = [0.8428104653763138, 0.4811279317353321, 0.15182322051545571]
SEEDS = st.integers(0, (1 << 64) - 1)


@settings(deadline=None)
@given(SEEDS, st.integers(0, 1 << 32))
def test_a_number_follows_from_seed_and_index(seed: int, index: int) -> None:
    """Asked again, in any order, the same number comes; it is in [0, 1)."""
    number = uniform(seed, index)
    uniform(seed, index + 1)
    assert uniform(seed, index) == number
    assert 0 <= number < 1


def test_known_numbers_stay_as_they_are() -> None:
    """A replay by a later release continues the same stream."""
    assert [uniform(7, 0), uniform(7, 1), uniform(8, 0)] == KNOWN


def test_the_numbers_are_uniform_and_streams_differ() -> None:
    """Ten thousand numbers fill twenty bins evenly, along a seed and along an index."""
    for numbers in (
        [uniform(3, index) for index in range(10_000)],
        [uniform(seed, 3) for seed in range(10_000)],
    ):
        counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
        chi_square = float(((counts - 500) ** 2 / 500).sum())
        assert chi_square < 50  # 19 degrees of freedom: one in 10,000 exceeds it
        assert len(set(numbers)) == 10_000
