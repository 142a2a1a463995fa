"""Chooses the next token of each row of logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longspan.worker.sampling.batch_sampler import sample_batch
from longspan.worker.sampling.row import SamplingRow
from longspan.worker.sampling.row_sampler import sample_row


def sample(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    """The next token of each row.

    ``logits`` is [rows, vocabulary], of any floating type, on any device; -inf is never chosen.
    Greedy rows take the largest logit, the first of equal ones. The others are divided by the
    temperature, cut to top-k, top-p and min-p in this order (as Hugging Face's), and drawn by
    the row's own random number from the cumulative distribution in the order of the
    vocabulary, so that a token depends on nothing but its row. Tokens as probable as the last
    one that is kept are kept.
    """
    if logits.device.type == "cpu":
        values = (row.float().numpy() for row in logits)
        return [sample_row(value, row) for value, row in zip(values, rows, strict=True)]
    return sample_batch(logits, rows)
