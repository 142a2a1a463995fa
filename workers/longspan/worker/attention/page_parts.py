"""Pages seen as several smaller blocks, without a copy.

Kernels that load keys by Hopper's tensor memory accelerator (TMA) do so only where a block of the
page table holds exactly one of their tiles. Ours holds 256 keys, most tiles 128.
"""

from __future__ import annotations

import torch

from longspan.worker.attention.pool import PAGE_TOKENS


def hopper_tile(key_dim: int, value_dim: int, *, windowed: bool) -> int:
    """Keys in a tile of flash-attn 4's kernel for Hopper, by head size, as its 4.0 has them.

    PAGE_TOKENS where they do not divide a page. A wrong answer costs time alone: blocks of any
    other size are loaded row by row.
    """
    if key_dim <= 128 or (key_dim <= 192 and value_dim <= 128 and not windowed):
        return 128
    if key_dim > 192 and windowed:
        return 64
    return PAGE_TOKENS


def cut_pool(pages: torch.Tensor, size: int) -> torch.Tensor:
    """Blocks [blocks, 256, 1, d] as [blocks * 256 / size, size, 1, d], in the same memory."""
    return pages.view(-1, size, 1, pages.shape[-1])


def cut_table(table: torch.Tensor, size: int) -> torch.Tensor:
    """The int32 table [segments, n] that finds the same keys in such a pool."""
    parts = PAGE_TOKENS // size
    if parts == 1:
        return table
    within = torch.arange(parts, dtype=table.dtype, device=table.device)
    return (table[..., None] * parts + within).flatten(1)
