"""flash-attn 2 (GPUs from compute capability 8.0): fp16 and bf16, head sizes up to 256."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.folded import FoldedTables


@dataclass(frozen=True, slots=True)
class Flash2:
    """A ``PagedKernel`` of flash-attn 2.

    Attributes:
        varlen: ``flash_attn.flash_attn_varlen_func``.
        with_kvcache: ``flash_attn.flash_attn_with_kvcache``, which splits long sequences over
            the whole GPU when there is one query for each.
    """

    varlen: Callable[..., Any]
    with_kvcache: Callable[..., Any]

    def __call__(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        tables: FoldedTables,
        *,
        scale: float,
        window: tuple[int, int],
    ) -> Attended:
        """See ``PagedKernel``."""
        if tables.decode:
            out, lse = self.with_kvcache(
                query.unsqueeze(1),
                keys,
                values,
                cache_seqlens=tables.keys,
                block_table=tables.block_table,
                softmax_scale=scale,
                causal=True,
                window_size=window,
                return_softmax_lse=True,
            )
            return Attended(out.squeeze(1), lse.squeeze(-1))
        out, lse, _ = self.varlen(
            query,
            keys,
            values,
            cu_seqlens_q=tables.query_offsets,
            cu_seqlens_k=tables.key_offsets,
            max_seqlen_q=tables.longest_query,
            max_seqlen_k=tables.longest_keys,
            softmax_scale=scale,
            causal=True,
            window_size=window,
            return_attn_probs=True,
            block_table=tables.block_table,
        )
        return Attended(out, lse.T)
