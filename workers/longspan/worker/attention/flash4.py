"""flash-attn 4 (Hopper and Blackwell GPUs): fp16 and bf16, compiled on first use.

Its absorbed form of MLA (``qv``, Blackwell only) takes rotary part and latents as two tensors,
where our pages hold both in one; so does FlashMLA, with pages of 64. MLA therefore takes the tiled
backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.folded import FoldedTables
from longspan.worker.attention.page_parts import cut_pool, cut_table, hopper_tile
from longspan.worker.attention.pool import PAGE_TOKENS


@dataclass(frozen=True, slots=True)
class Flash4:
    """A ``PagedKernel`` of flash-attn 4.

    Attributes:
        varlen: ``flash_attn.cute.flash_attn_varlen_func``.
        num_splits: parts that long keys are cut into, 0 for the library's choice. Hopper has
            code for 1 only, and so decodes long sequences slowly.
        hopper: show prefills the pages in parts of a tile of Hopper's kernel, which it loads by
            TMA. All of a tile is then read, behind a sequence's last key too: what lies there
            must be finite (``Slots.fresh``). Decoded tokens begin pages without writing to the
            rest of them, so decode calls keep whole pages, which are read up to the last key.
    """

    varlen: Callable[..., Any]
    num_splits: int
    hopper: bool = False

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
        size = PAGE_TOKENS
        if self.hopper and not tables.decode:
            size = hopper_tile(keys.shape[-1], values.shape[-1], windowed=window[0] >= 0)
        out, lse = self.varlen(
            query,
            cut_pool(keys, size),
            cut_pool(values, size),
            cu_seqlens_q=tables.query_offsets,
            max_seqlen_q=tables.longest_query,
            max_seqlen_k=tables.longest_keys,
            seqused_k=tables.keys,
            page_table=cut_table(tables.block_table, size),
            softmax_scale=scale,
            causal=True,
            window_size=tuple(None if side < 0 else side for side in window),
            num_splits=self.num_splits,
            return_lse=True,
        )
        return Attended(out, lse.T)
