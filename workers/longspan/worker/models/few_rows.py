"""How products of very few rows run fastest on this machine: measured at the start.

A decode step of one sequence multiplies one row by every weight, as fast as memory brings them.
On 2 cores of an AMD EPYC (Zen 4) oneDNN reads a packed float32 weight faster for four rows than
for one, and far faster than MKL a plain one; on 2 cores of an Intel Xeon with AMX four rows take a
third longer than one, and MKL is another fifth faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

ROWS_HINT = 16
"""Rows that the arrangement is chosen for; any number may follow."""

LEAST_ROWS = 4
"""Rows that fewer are padded to where nothing was measured."""

WORTHWHILE = 0.9
"""Of the time of the way before it, that a way must not take more than."""

CACHED_BYTES = 64 << 20
"""Weights below this may stay in the processor's cache: memory is not what they wait for."""

SIZES = (2560, 1024)
WEIGHTS_BYTES = 160 << 20
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class FewRows:
    """One machine's way with few rows.

    Attributes:
        least: fewer rows are padded to so many.
        plain_row: one row is multiplied by the plain weight, kept beside the packed one.
    """

    least: int = LEAST_ROWS
    plain_row: bool = False


@torch.inference_mode()
def measure_few_rows(dtype: torch.dtype, *, may_keep_plain: bool) -> FewRows:
    """The quickest way for one row, preferring what takes less memory where little is gained."""
    outputs, inputs = SIZES
    count = WEIGHTS_BYTES // (outputs * inputs * dtype.itemsize)
    plain = [torch.full(SIZES, 0.5, dtype=dtype) for _ in range(count)]
    packed: list[Any] = [torch.ops.mkldnn._reorder_linear_weight(p, ROWS_HINT) for p in plain]
    multiply: Any = torch.ops.mkldnn._linear_pointwise.default

    def run_packed(rows: int) -> Callable[[], object]:
        row = torch.ones(rows, inputs, dtype=dtype)
        return lambda: [multiply(row, weight, None, "none", [], "") for weight in packed]

    one = torch.ones(1, inputs, dtype=dtype)
    padded_s, single_s, plain_s = _best_s(
        run_packed(LEAST_ROWS),
        run_packed(1),
        lambda: [torch.nn.functional.linear(one, weight) for weight in plain],
    )
    least = 1 if single_s <= WORTHWHILE * padded_s else LEAST_ROWS
    quickest_s = min(padded_s, single_s)
    return FewRows(least, plain_row=may_keep_plain and plain_s <= WORTHWHILE * quickest_s)


def _best_s(*ways: Callable[[], object]) -> list[float]:
    """Of each the shortest of some times, taken by turns."""
    best = [float("inf")] * len(ways)
    for _ in range(ROUNDS):
        for index, way in enumerate(ways):
            start = time.perf_counter()
            way()
            best[index] = min(best[index], time.perf_counter() - start)
    return best
