"""Attention for training: windows by blocks, and filler that counts more than once.

In a layer without positions a filler token that stands in a text m times has the weight of one
with log m added to its score. So short texts teach how sharp a look into a long one must be.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

ATTENTION = "recall-training"


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    log_counts: torch.Tensor,
    spreads: list[torch.Tensor],
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Behind the signature of transformers' ``AttentionInterface``.

    ``query`` is [texts, heads, n, d], ``log_counts`` [texts, n]; the result [texts, n, heads, d].
    ``spreads`` gets ``spread`` of the keys of each layer without a window.
    """
    assert attention_mask is None
    if sliding_window is None:
        spreads.append(spread(key, log_counts))
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    if sliding_window is None:
        out = _weighted(query, key, value, log_counts, scaling)
    else:
        out = windowed(query, key, value, sliding_window, scaling)
    return out.transpose(1, 2), None


def _weighted(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_counts: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    hidden = torch.full((query.shape[2],) * 2, float("-inf")).triu(1)
    mask = hidden + log_counts[:, None, None]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)


def spread(key: torch.Tensor, log_counts: torch.Tensor) -> torch.Tensor:
    """How much the keys of what counts more than once differ, by the size of the other keys.

    ``key`` is [texts, heads, n, d]; both are mean squares, so no scale changes the result.
    """
    filler = (log_counts > 0)[:, None, :, None].float()
    count = filler.sum((0, 2), keepdim=True).clamp(min=1)
    mean = (key * filler).sum((0, 2), keepdim=True) / count
    apart = ((key - mean).square() * filler).sum() / count
    other = (key.square() * (1 - filler)).sum() / (1 - filler).sum().clamp(min=1)
    return (apart / other).mean()


def windowed(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int, scaling: float
) -> torch.Tensor:
    """Each query sees itself and the ``window`` - 1 tokens before it; blocks of ``window``."""
    tokens = query.shape[2]
    blocks = -(-tokens // window)
    spare = blocks * window - tokens
    query, key, value = (F.pad(x, (0, 0, 0, spare)) for x in (query, key, value))
    shape = (*query.shape[:2], blocks, window, query.shape[3])
    key, value = (
        torch.cat((F.pad(x.view(shape), (0, 0, 0, 0, 1, 0))[:, :, :-1], x.view(shape)), 3)
        for x in (key, value)
    )
    places = torch.arange(2 * window) - window
    back = torch.arange(window)[:, None] - places
    seen = ((back >= 0) & (back < window)).expand(blocks, -1, -1).clone()
    seen[0] &= places >= 0
    out = F.scaled_dot_product_attention(
        query.view(shape), key, value, attn_mask=seen, scale=scaling
    )
    return out.flatten(2, 3)[:, :, :tokens]


def register() -> None:
    """Make ``ATTENTION`` known to transformers."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attend)
