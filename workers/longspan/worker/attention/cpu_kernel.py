"""torch's flash attention on a CPU, with the log-sum-exp that its public function keeps back."""

from __future__ import annotations

import torch


def flash(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    scale: float,
    causal: bool = False,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``query`` [batch, heads, n, d] over ``keys`` and ``values`` [batch, kv_heads, m, d].

    Returns out [batch, heads, n, d] and lse, float32 [batch, heads, n]. ``causal`` is aligned to
    the upper left, so it is right for n = m only. ``mask`` is added to the scores; its shape
    [batch, 1, n or 1, m] is broadcast.
    """
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, keys, values, 0.0, causal, attn_mask=mask, scale=scale
    )
    return out, lse
