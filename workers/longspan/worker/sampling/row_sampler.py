"""Chooses the next token of one row on a CPU, where a row fits the cache and a batch does not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.sampling.params import SamplingParams
from longspan.worker.sampling.row import SamplingRow

Floats = npt.NDArray[np.float32]


def sample_row(logits: Floats, row: SamplingRow) -> int:
    """The token of one row; ``logits`` is [vocabulary]. See ``sampler.sample``."""
    if row.mask is not None:
        logits = logits.copy()
        logits[~_allowed(row.mask, len(logits))] = -np.inf
    if row.params.greedy:
        return int(logits.argmax())
    # The largest becomes 0, so that a low temperature overflows to -inf and never to inf.
    weights = logits - logits.max()
    with np.errstate(over="ignore"):
        weights /= np.float32(row.params.temperature)
    np.exp(weights, out=weights)
    least = _least(weights, row.params)
    if least == 0:
        return _draw(weights, row.number)
    tokens = np.flatnonzero(weights >= least)
    return int(tokens[_draw(weights[tokens], row.number)])


def _allowed(mask: torch.Tensor, vocabulary: int) -> npt.NDArray[np.bool_]:
    packed = mask.numpy().view(np.uint8)
    return np.unpackbits(packed, count=vocabulary, bitorder="little").view(np.bool_)


def _least(weights: Floats, params: SamplingParams) -> float:
    """The smallest weight that is kept; 0 keeps all. The largest weight is 1."""
    least = 0.0
    if 0 < params.top_k < len(weights):
        place = len(weights) - params.top_k
        least = float(np.partition(weights, place)[place])
    if params.top_p < 1:
        kept = weights[weights >= least] if least else weights
        least = max(least, _nucleus(kept, params.top_p))
    return max(least, params.min_p)


def _nucleus(weights: Floats, mass: float) -> float:
    """The last weight of the most probable tokens that have this part of the mass."""
    total = weights.sum(dtype=np.float64)
    # All weights below this bound together have less than 1 - mass, so none of them is kept.
    bound = (1 - mass) * total / len(weights)
    largest = np.sort(weights[weights >= bound])[::-1]
    before = largest.cumsum(dtype=np.float64) - largest
    return float(largest[np.count_nonzero(before < mass * total) - 1])


def _draw(weights: Floats, number: float) -> int:
    # torch, as numpy's own takes three times as long.
    sums = torch.from_numpy(weights).cumsum(0, dtype=torch.float64).numpy()
    return int(sums.searchsorted(number * sums[-1], side="right"))
