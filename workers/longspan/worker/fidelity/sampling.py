"""Which steps of a prefill are watched, and which of their queries. Pure integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Span = tuple[int, int]

STEPS = 8
QUERIES = 32
"""Of each layer, over all watched steps."""


def watched(spans: Sequence[Span], end: int) -> frozenset[Span]:
    """Steps of the second half of [0, end), evenly spread: earlier queries see most of what lies
    before them under any policy, and tell little."""
    late = [span for span in spans if span[1] > end // 2]
    places = np.linspace(0, len(late) - 1, min(STEPS, len(late))).round().astype(int)
    return frozenset(late[place] for place in places)


def sampled(span: Span, steps: int) -> Integers:
    """Queries of a watched step, counted from its first: ascending, the same in every run."""
    length = span[1] - span[0]
    wanted = min(length, max(1, QUERIES // steps))
    numbers = np.random.default_rng(span[0])
    return np.sort(numbers.choice(length, wanted, replace=False)).astype(np.int64)
