"""KV memory that a sequence holds under a policy, counted in pages."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.generation.kv_memory import summary_bytes
from longspan.worker.generation.policies import Policies
from longspan.worker.models.probe import LayerShape


def held_bytes(
    policy: ModelPolicy, shapes: Sequence[LayerShape], dtype: torch.dtype, tokens: int
) -> int:
    """Bytes that a worker that serves this policy alone holds behind so many tokens."""
    alone = Policies([policy], shapes, dtype.itemsize)
    pages, last = -(-tokens // PAGE_TOKENS), (tokens - 1) // PAGE_TOKENS
    frames = sum(
        size * (pages - len(kept.droppable(last)))
        for size, kept in zip(alone.sizes, alone.get("").retentions, strict=True)
    )
    return frames * alone.frame_bytes + pages * summary_bytes(policy, shapes, dtype)
