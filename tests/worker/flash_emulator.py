"""flash-attention's kernels as they are documented, on a CPU: signatures, checks and results.

float32 is taken as well as fp16 and bf16, so that results can be compared closely. Everything
else that the libraries refuse is refused, with the libraries' kind of error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

Window = tuple[int, int]
NO_WINDOW = (-1, -1)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


class AuxRequest(NamedTuple):
    """torch.nn.attention.varlen.AuxRequest."""

    lse: bool = False


def flash2_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = NO_WINDOW,
    softcap: float = 0.0,
    alibi_slopes: None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, None]:
    """flash_attn.flash_attn_varlen_func, 2.8: lse is [heads, total_q]."""
    check(dropout_p == 0.0 and softcap == 0.0, "not emulated")
    check_integers(cu_seqlens_q, cu_seqlens_k)
    check_heads(q, k, v, widest=256)
    check(q.shape[-1] == v.shape[-1], "keys and values must have the same head dimension")
    lengths_q, lengths_k = cu_seqlens_q.diff(), cu_seqlens_k.diff()
    check(cu_seqlens_q.shape == cu_seqlens_k.shape, "cu_seqlens must have the same shape")
    check(max_seqlen_q >= int(lengths_q.max()), "max_seqlen_q is too small")
    check(max_seqlen_k >= int(lengths_k.max()), "max_seqlen_k is too small")
    check(int(cu_seqlens_q[-1]) == len(q), "cu_seqlens_q does not end at total_q")
    read: Reader
    if block_table is not None:
        check(k.shape[1] % 256 == 0, "Paged KV cache block size must be divisible by 256")
        read = paged(k, v, block_table, lengths_k)
    else:
        read = packed(k, v, cu_seqlens_k)
    # A row without keys gets +inf here, where later versions give -inf.
    out, lse = attend(q, lengths_q, lengths_k, read, softmax_scale, causal, window_size, math.inf)
    return (out, lse, None) if return_attn_probs else out


def flash2_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: None = None,
    v: None = None,
    rotary_cos: None = None,
    rotary_sin: None = None,
    cache_seqlens: torch.Tensor | None = None,
    cache_batch_idx: torch.Tensor | None = None,
    cache_leftpad: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = NO_WINDOW,
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """flash_attn.flash_attn_with_kvcache, 2.8, with a block table: lse is [batch, heads, n]."""
    check(block_table is not None and cache_seqlens is not None, "not emulated")
    check(cache_batch_idx is None, "Paged KVcache does not support cache_batch_idx")
    check(cache_leftpad is None, "We don't support Paged KV and leftpad_k at the same time")
    check(k_cache.shape[1] % 256 == 0, "Paged KV cache block size must be divisible by 256")
    assert block_table is not None
    assert cache_seqlens is not None
    check_integers(cache_seqlens)
    check_heads(q, k_cache, v_cache, widest=256)
    batch, length = q.shape[:2]
    check(cache_seqlens.shape == (batch,), "seqlens_k must have shape (batch)")
    read = paged(k_cache, v_cache, block_table, cache_seqlens)
    lengths = torch.full((batch,), length)
    flat = q.flatten(0, 1)
    out, lse = attend(
        flat, lengths, cache_seqlens, read, softmax_scale, causal, window_size, math.inf
    )
    out, lse = batched(out, lse, batch)
    return (out, lse) if return_softmax_lse else out


def flash3_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: None = None,
    v: None = None,
    qv: None = None,
    rotary_cos: None = None,
    rotary_sin: None = None,
    cache_seqlens: torch.Tensor | None = None,
    cache_batch_idx: None = None,
    cache_leftpad: None = None,
    page_table: torch.Tensor | None = None,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_k_new: None = None,
    max_seqlen_q: int | None = None,
    rotary_seqlens: None = None,
    q_descale: None = None,
    k_descale: None = None,
    v_descale: None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = NO_WINDOW,
    attention_chunk: int = 0,
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    scheduler_metadata: None = None,
    num_splits: int = 0,
    pack_gqa: bool | None = None,
    sm_margin: int = 0,
    return_softmax_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """flash_attn_interface.flash_attn_with_kvcache with a page table.

    lse is [heads, total_q] with ``cu_seqlens_q``, else [batch, heads, n]. The partial results
    of the splits follow it.
    """
    check(page_table is not None and cache_seqlens is not None, "not emulated")
    assert page_table is not None
    assert cache_seqlens is not None
    check_integers(cache_seqlens)
    check_heads(q, k_cache, v_cache, widest=256)
    if cu_seqlens_q is None:
        batch, length = q.shape[:2]
        lengths, flat = torch.full((batch,), length), q.flatten(0, 1)
    else:
        check_integers(cu_seqlens_q)
        check(max_seqlen_q is not None, "max_seqlen_q must be provided with cu_seqlens_q")
        batch, lengths, flat = len(cu_seqlens_q) - 1, cu_seqlens_q.diff(), q
        check(int(lengths.max()) <= (max_seqlen_q or 0), "max_seqlen_q is too small")
    check(page_table.shape[0] == batch, "batch_size must be equal to batch_size_k")
    check(cache_seqlens.shape == (batch,), "seqused_k must have shape (batch)")
    read = paged(k_cache, v_cache, page_table, cache_seqlens)
    out, lse = attend(flat, lengths, cache_seqlens, read, softmax_scale, causal, window_size)
    if cu_seqlens_q is None:
        out, lse = batched(out, lse, batch)
    return (out, lse, torch.empty(0), torch.empty(0)) if return_softmax_lse else out


def flash4_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    qv: None = None,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_k: torch.Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    min_seqlen_k: int | None = None,
    seqused_q: None = None,
    seqused_k: torch.Tensor | None = None,
    gather_kv_indices: None = None,
    page_table: torch.Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int | None, int | None] = (None, None),
    learnable_sink: None = None,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    return_lse: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """flash_attn.cute.flash_attn_varlen_func with a page table: lse is [heads, total_q].

    Blocks of fewer than 256 keys are loaded whole, as Hopper's TMA does where they are a tile: what
    is not finite behind the last key comes through.
    """
    check(page_table is not None and seqused_k is not None, "not emulated")
    check(cu_seqlens_q is not None, "not emulated")
    assert page_table is not None
    assert seqused_k is not None
    assert cu_seqlens_q is not None
    require(cu_seqlens_k is None, "page_table is not supported with cu_seqlens_k")
    require(page_table.dtype == torch.int32, "page_table must be int32")
    require(page_table.shape[0] == len(cu_seqlens_q) - 1, "page_table must have a row a sequence")
    require(seqused_k.shape == (len(cu_seqlens_q) - 1,), "seqused_k must have shape (batch_size,)")
    require(all(side is None or side >= 0 for side in window_size), "no bound is None, not -1")
    check_integers(cu_seqlens_q, seqused_k)
    check_heads(q, k, v, widest=256)
    lengths = cu_seqlens_q.diff()
    require(max_seqlen_q is None or max_seqlen_q >= int(lengths.max()), "max_seqlen_q")
    require(max_seqlen_k is None or max_seqlen_k >= int(seqused_k.max()), "max_seqlen_k")
    read = paged(k, v, page_table, seqused_k)
    left, right = (-1 if side is None else side for side in window_size)
    out, lse = attend(q, lengths, seqused_k, read, softmax_scale, causal, (left, right))
    if k.shape[1] < 256:
        weightless = [v[block].flatten(0, 1) * 0 for block in last_blocks(page_table, seqused_k, k)]
        parts = torch.split(out, lengths.tolist())
        out = torch.cat([p + w.sum(0) for p, w in zip(parts, weightless, strict=True)])
    return out, lse if return_lse else None


def last_blocks(table: torch.Tensor, lengths: torch.Tensor, k: torch.Tensor) -> list[int]:
    """The block of each sequence's last key."""
    last = (lengths.long() - 1) // k.shape[1]
    return [int(block) for block in table.gather(1, last[:, None])[:, 0]]


def torch_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    *,
    return_aux: AuxRequest | None = None,
    scale: float | None = None,
    window_size: Window = NO_WINDOW,
    enable_gqa: bool = False,
    seqused_k: torch.Tensor | None = None,
    block_table: torch.Tensor | None = None,
    num_splits: int | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """torch.nn.attention.varlen.varlen_attn over packed keys: lse is [heads, total_q]."""
    check(block_table is None and seqused_k is None and cu_seq_k is not None, "not emulated")
    assert cu_seq_k is not None
    if query.shape[1] != key.shape[1] and not enable_gqa:
        raise ValueError("Expect query and key/value to have the same number of heads")
    check_integers(cu_seq_q, cu_seq_k)
    check_heads(query, key, value, widest=256)
    check(query.shape[-1] == value.shape[-1], "values must have the keys' head dimension")
    lengths_q, lengths_k = cu_seq_q.diff(), cu_seq_k.diff()
    check(max_q >= int(lengths_q.max()), "max_q is too small")
    check(max_k >= int(lengths_k.max()), "max_k is too small")
    check(int(cu_seq_q[-1]) == len(query) and int(cu_seq_k[-1]) == len(key), "cu_seq is wrong")
    causal = tuple(window_size) == (-1, 0)
    bounds = NO_WINDOW if causal else window_size
    read = packed(key, value, cu_seq_k)
    out, lse = attend(query, lengths_q, lengths_k, read, scale, causal, bounds, math.inf)
    return (out, lse) if return_aux is not None and return_aux.lse else out


Reader = Callable[[int], tuple[torch.Tensor, torch.Tensor]]
"""Sequence → its keys and values, [n, kv_heads, d]."""


def paged(k: torch.Tensor, v: torch.Tensor, table: torch.Tensor, lengths: torch.Tensor) -> Reader:
    """Keys of [blocks, block_size, kv_heads, d], found through a block table."""
    check(table.dtype == torch.int32, "block_table must have dtype torch.int32")
    check(table.stride(-1) == 1, "block_table must have contiguous last dimension")
    check(k.dim() == 4 and k.shape[:3] == v.shape[:3], "the cache must be [blocks, page, heads, d]")
    size = k.shape[1]

    def read(sequence: int) -> tuple[torch.Tensor, torch.Tensor]:
        length = int(lengths[sequence])
        blocks = table[sequence, : -(-length // size)].long()
        check(len(blocks) * size >= length, "the block table is too short")
        return k[blocks].flatten(0, 1)[:length], v[blocks].flatten(0, 1)[:length]

    return read


def packed(k: torch.Tensor, v: torch.Tensor, offsets: torch.Tensor) -> Reader:
    """Keys of [total_k, kv_heads, d]."""
    check(k.dim() == 3 and k.shape[:2] == v.shape[:2], "keys must be [total_k, heads, d]")

    def read(sequence: int) -> tuple[torch.Tensor, torch.Tensor]:
        part = slice(int(offsets[sequence]), int(offsets[sequence + 1]))
        return k[part], v[part]

    return read


def attend(
    q: torch.Tensor,
    lengths_q: torch.Tensor,
    lengths_k: torch.Tensor,
    read: Reader,
    scale: float | None,
    causal: bool,
    window: Window,
    empty_lse: float = -math.inf,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Out [total_q, heads, dv] and lse [heads, total_q].

    Masks are aligned to the bottom right; a row that sees no key gets 0 and ``empty_lse``.
    """
    scale = scale if scale is not None else q.shape[-1] ** -0.5
    outs, lses = [], []
    for sequence, rows in enumerate(torch.split(q, lengths_q.tolist())):
        keys, values = (
            x.float().repeat_interleave(q.shape[1] // x.shape[1], 1) for x in read(sequence)
        )
        scores = torch.einsum("qhd,khd->hqk", rows.float(), keys) * scale
        seen = visible(len(rows), int(lengths_k[sequence]), causal, window)
        scores = scores.masked_fill(~seen, -math.inf)
        lse = scores.logsumexp(-1)
        weights = torch.where(seen, (scores - lse[..., None]).exp(), 0.0)
        outs.append(torch.einsum("hqk,khd->qhd", weights, values).to(q.dtype))
        lses.append(lse.masked_fill(~seen.any(-1), empty_lse))
    return torch.cat(outs), torch.cat(lses, 1)


def batched(out: torch.Tensor, lse: torch.Tensor, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Out [batch, n, heads, dv] and lse [batch, heads, n] of packed ones."""
    heads = out.shape[1]
    lse = lse.view(heads, batch, -1).transpose(0, 1)
    return out.view(batch, -1, heads, out.shape[-1]), lse


def visible(queries: int, keys: int, causal: bool, window: Window) -> torch.Tensor:
    """Which query sees which key: bool [queries, keys]."""
    left, right = window
    if causal:
        right = 0
    distance = torch.arange(keys) - (torch.arange(queries)[:, None] + keys - queries)
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if right >= 0:
        seen &= distance <= right
    if left >= 0:
        seen &= distance >= -left
    return seen


def check_heads(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, widest: int) -> None:
    """Number types, head sizes and strides that the kernels take."""
    check(q.dtype in DTYPES, "FlashAttention only support fp16 and bf16 data type")
    check(q.dtype == k.dtype == v.dtype, "query, key and value must have the same dtype")
    check(all(x.stride(-1) == 1 for x in (q, k, v)), "last dimension must be contiguous")
    check(q.shape[-1] == k.shape[-1], "query and key must have the same head dimension")
    check(q.shape[-1] <= widest, f"only supports head dimension at most {widest}")
    check(q.shape[-1] % 8 == 0 and v.shape[-1] % 8 == 0, "head dimension must be a multiple of 8")
    check(q.shape[-2] % k.shape[-2] == 0, "heads of keys must divide heads of queries")


def check_integers(*tensors: torch.Tensor) -> None:
    """Offsets and lengths are int32 and contiguous; offsets are checked by their users."""
    for tensor in tensors:
        check(tensor.dtype == torch.int32, "sequence lengths must have dtype int32")
        check(tensor.is_contiguous(), "sequence lengths must be contiguous")


def check(condition: bool, message: str) -> None:
    """TORCH_CHECK."""
    if not condition:
        raise RuntimeError(message)


def require(condition: bool, message: str) -> None:
    """flash-attn 4 asserts."""
    if not condition:
        raise AssertionError(message)
