"""KV memory that a sequence holds under a policy, counted in pages."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.models.probe import LayerShape


def held_bytes(
    policy: ModelPolicy, shapes: Sequence[LayerShape], dtype: torch.dtype, tokens: int
) -> int:
    """Bytes of the pages that the engine holds behind so many tokens.

    A page number is a page in every layer, so pages are given up only where every layer drops
    them.
    """
    pages = -(-tokens // PAGE_TOKENS)
    if policy.drops:
        last = (tokens - 1) // PAGE_TOKENS
        pages -= max(0, last - policy.window_pages - policy.prefix_pages)
    return pages * PAGE_TOKENS * sum(shape.numbers for shape in shapes) * dtype.itemsize
