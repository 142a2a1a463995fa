"""flash-attn 3 (Hopper GPUs): fp16 and bf16, head sizes up to 256.

Its absorbed form of MLA takes the rotary part, at most 64 wide, as ``q`` and ``k`` and the latents
as ``qv`` and ``v``: two tensors, where our pages hold both in one. MLA therefore takes the tiled
backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.folded import FoldedTables


@dataclass(frozen=True, slots=True)
class Flash3:
    """A ``PagedKernel`` of flash-attn 3.

    Attributes:
        with_kvcache: ``flash_attn_interface.flash_attn_with_kvcache``; its varlen function
            has no page table.
    """

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
            out, lse = self._call(query.unsqueeze(1), keys, values, tables, scale, window)
            return Attended(out.squeeze(1), lse.squeeze(-1))
        out, lse = self._call(
            query,
            keys,
            values,
            tables,
            scale,
            window,
            cu_seqlens_q=tables.query_offsets,
            max_seqlen_q=tables.longest_query,
        )
        return Attended(out, lse.T)

    def _call(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        tables: FoldedTables,
        scale: float,
        window: tuple[int, int],
        **queries: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Out and lse; some builds return the partial results of the splits after them."""
        out, lse, *_ = self.with_kvcache(
            query,
            keys,
            values,
            cache_seqlens=tables.keys,
            page_table=tables.block_table,
            softmax_scale=scale,
            causal=True,
            window_size=window,
            return_softmax_lse=True,
            **queries,
        )
        return out, lse
