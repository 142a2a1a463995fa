"""Chooses the next tokens of a batch of rows in a few large operations, for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from longspan.worker.sampling.params import SamplingParams
from longspan.worker.sampling.row import SamplingRow

MASKED = float("-inf")


def sample_batch(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    """The token of each row; ``logits`` is [rows, vocabulary]. See ``sampler.sample``."""
    logits = _masked(logits, rows)
    drawn = [index for index, row in enumerate(rows) if not row.params.greedy]
    tokens: list[int] = logits.argmax(-1).tolist() if len(drawn) < len(rows) else [0] * len(rows)
    if drawn:
        chosen = _draw(logits[drawn], [rows[index] for index in drawn])
        for index, token in zip(drawn, chosen, strict=True):
            tokens[index] = token
    return tokens


def best(logits: torch.Tensor) -> tuple[list[float], list[int]]:
    """Of each row of [rows, vocabulary] the largest logit, and the first token that has it.

    What greedy rows without masks ask for; the device is waited for once.
    """
    largest, tokens = logits.max(-1)
    values: list[list[float]] = torch.stack((largest.double(), tokens.double())).tolist()
    return values[0], [int(token) for token in values[1]]


def _masked(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
    """The logits with -inf where a row's mask forbids."""
    masked = [index for index, row in enumerate(rows) if row.mask is not None]
    if not masked:
        return logits
    packed = torch.stack([row.mask for row in rows if row.mask is not None])
    bits = packed.view(torch.uint8).to(logits.device)
    places = torch.arange(8, dtype=torch.uint8, device=logits.device)
    allowed = (bits[..., None] >> places & 1).bool().flatten(1)[:, : logits.shape[1]]
    logits = logits.clone()
    logits[masked] = logits[masked].masked_fill_(~allowed, MASKED)
    return logits


def _draw(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    def column(value: Callable[[SamplingParams], float]) -> torch.Tensor:
        values = [value(row.params) for row in rows]
        return torch.tensor(values, dtype=torch.float32, device=logits.device)[:, None]

    scores = logits.float()
    # The largest becomes 0, so that a low temperature overflows to -inf and never to inf.
    scores = (scores - scores.amax(-1, keepdim=True)) / column(lambda p: p.temperature)
    scores = _top_k(scores, [row.params.top_k for row in rows])
    weights = scores.softmax(-1)
    if any(row.params.top_p < 1 for row in rows):
        weights = _top_p(weights, column(lambda p: p.top_p))
    if any(row.params.min_p > 0 for row in rows):
        least = weights.amax(-1, keepdim=True) * column(lambda p: p.min_p)
        weights = weights.masked_fill(weights < least, 0)
    return _inverse_cdf(weights, [row.number for row in rows])


def _top_k(scores: torch.Tensor, counts: list[int]) -> torch.Tensor:
    vocabulary = scores.shape[1]
    limited = [count for count in counts if 0 < count < vocabulary]
    if not limited:
        return scores
    # Rows without a limit look at the last column, which is -inf.
    largest = torch.nn.functional.pad(scores.topk(max(limited)).values, (0, 1), value=MASKED)
    last = [count - 1 if 0 < count < vocabulary else max(limited) for count in counts]
    least = largest.gather(1, torch.tensor(last, device=scores.device)[:, None])
    return scores.masked_fill(scores < least, MASKED)


def _top_p(weights: torch.Tensor, masses: torch.Tensor) -> torch.Tensor:
    """Zero where the more probable tokens have the mass already."""
    everything = masses >= 1
    # All weights below this bound together have less than 1 - mass, so none of them is kept.
    bound = ((1 - masses) / weights.shape[1]).masked_fill(everything, 2)
    candidates = int((weights >= bound).sum(-1).max())
    largest = weights.topk(candidates).values.double()
    before = largest.cumsum(-1) - largest
    least = largest.masked_fill(before >= masses, 2).amin(-1, keepdim=True).float()
    return weights.masked_fill(weights < least.masked_fill(everything, 0), 0)


def _inverse_cdf(weights: torch.Tensor, numbers: list[float]) -> list[int]:
    sums = weights.cumsum(-1, dtype=torch.float64)
    places = torch.tensor(numbers, dtype=torch.float64, device=weights.device)[:, None]
    tokens: list[int] = torch.searchsorted(sums, places * sums[:, -1:], right=True)[:, 0].tolist()
    return tokens
