"""Rows of a step with equally many queries, which one call can take together. Pure integers."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from longspan.worker.attention.rows import AttentionRows


class Run(NamedTuple):
    """Neighbouring rows with equally many queries.

    Attributes:
        first, last: the rows [first, last).
        query: where their queries begin.
        length: queries of each.
    """

    first: int
    last: int
    query: int
    length: int


def same_lengths(rows: AttentionRows) -> list[Run]:
    """The runs of a step, in its order."""
    changes = np.flatnonzero(np.diff(rows.lengths)) + 1
    bounds = [0, *changes.tolist(), len(rows.lengths)]
    return [
        Run(first, last, int(rows.offsets[first]), int(rows.lengths[first]))
        for first, last in pairwise(bounds)
    ]
