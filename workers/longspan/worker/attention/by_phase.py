"""Two kernels as one: prefill by the one, decode by the other.

On Hopper flash-attn 2 prefills pages by the kernel it has for decoding, and flash-attn 4 cannot
split the keys of a decoding sequence over the GPU: each is slow where the other is fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.folded import FoldedTables, PagedKernel


@dataclass(frozen=True, slots=True)
class ByPhase:
    """A ``PagedKernel`` of two.

    Attributes:
        prefill: takes calls in which some sequence has several queries.
        decode: takes those of one query each, also in CUDA graphs.
    """

    prefill: PagedKernel
    decode: PagedKernel

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
        kernel = self.decode if tables.decode else self.prefill
        return kernel(query, keys, values, tables, scale=scale, window=window)
