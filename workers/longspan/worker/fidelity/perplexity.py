"""How well logits foretell the tokens that follow."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

Tokens = npt.NDArray[np.uint32]


def log_probabilities(logits: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """Natural logarithm of each token's probability: [n] of logits [n, vocabulary]."""
    index = torch.from_numpy(tokens.astype(np.int64))[:, None]
    return logits.log_softmax(-1).gather(1, index)[:, 0]


def ranks(logits: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """Place of each token among all, the likeliest first, from 1: int64 [n]."""
    index = torch.from_numpy(tokens.astype(np.int64))[:, None]
    return (logits > logits.gather(1, index)).sum(-1) + 1


def perplexity(log_probability_sum: float, tokens: int) -> float:
    """exp of the mean surprise."""
    return math.exp(-log_probability_sum / tokens)
