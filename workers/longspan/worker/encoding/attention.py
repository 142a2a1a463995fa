"""Attention of each text over itself in a packed row.

Tensors have flash-attn's layout: [tokens, heads, head_dim]. Every kernel computes what
``attend_naive`` computes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from longspan.worker.encoding.packing import Segments

Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Segments], torch.Tensor]
"""(query, key, value, segments) → out, all [tokens, heads, head_dim]; scale is head_dim^-½."""


def attend_naive(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments
) -> torch.Tensor:
    """The definition: softmax(q kᵀ / √d) v, one text at a time, in float32."""
    outs = []
    parts = (torch.split(x.float(), list(segments.lengths)) for x in (query, key, value))
    for q, k, v in zip(*parts, strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
    return torch.cat(outs).to(query.dtype)


def attend_sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments
) -> torch.Tensor:
    """torch's fused attention, one call per run of neighbours of equal length."""
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    start = 0
    for length, run in groupby(segments.lengths):
        texts = sum(1 for _ in run)
        end = start + texts * length
        q, k, v = (
            x[start:end].view(texts, length, *x.shape[1:]).transpose(1, 2)
            for x in (query, key, value)
        )
        attended = scaled_dot_product_attention(q, k, v)
        out[start:end] = attended.transpose(1, 2).flatten(0, 1)
        start = end
    return out


def attend_flash(
    varlen: Callable[..., torch.Tensor],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
) -> torch.Tensor:
    """One ``flash_attn_varlen_func`` call for the whole row."""
    return varlen(
        query,
        key,
        value,
        cu_seqlens_q=segments.offsets,
        cu_seqlens_k=segments.offsets,
        max_seqlen_q=segments.longest,
        max_seqlen_k=segments.longest,
        causal=False,
    )


def attend_torch_varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments
) -> torch.Tensor:
    """One call of the flash kernel that torch brings along; CUDA only."""
    from torch.nn.attention.varlen import varlen_attn

    offsets, longest = segments.offsets, segments.longest
    out = varlen_attn(query, key, value, offsets, offsets, longest, longest)
    assert isinstance(out, torch.Tensor)
    return out


def select_kernel(device: torch.device, dtype: torch.dtype) -> Kernel:
    """The fastest kernel that this device and number type have."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return attend_sdpa
    if find_spec("flash_attn") is not None:
        return partial(attend_flash, import_module("flash_attn").flash_attn_varlen_func)
    if find_spec("torch.nn.attention.varlen") is not None:
        return attend_torch_varlen
    return attend_sdpa


def attend_packed(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    kernel: Kernel,
    segments: Segments,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """A kernel behind the signature of transformers' ``AttentionInterface``.

    ``query``, ``key`` and ``value`` are [1, heads, tokens, head_dim]; the result is
    [1, tokens, heads, head_dim]. ``kernel`` and ``segments`` come from the model call.
    """
    assert attention_mask is None, "a mask of tokens x tokens must never be built"
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return kernel(q, k, v, segments)[None], None
