"""Quest: an upper bound of the score of every key in a block, from the block's extremes.

Tang et al., "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference", 2024
(arXiv:2406.10774). Pages are scored by blocks of 16 keys within them: a page is as good as its
best block, and bounds of few keys are tight.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

BLOCK_KEYS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Pages to select from, by their bounds; see ``selection.Candidates``.

    Attributes:
        known: [kv_heads, pages, blocks, 2 d].
    """

    known: torch.Tensor

    @property
    def products(self) -> int:
        """See ``selection.Candidates``."""
        return self.known.shape[1] * self.known.shape[2]

    def scores(self, query: torch.Tensor, pages: int) -> torch.Tensor:
        """See ``selection.Candidates``."""
        return scores(query, self.known[:, :pages])


def bounds(keys: torch.Tensor) -> torch.Tensor:
    """The extremes of whole pages: largest, then smallest, number by number.

    ``keys`` is [pages, kv_heads, page tokens, d]; the result [kv_heads, pages, blocks, 2 d].
    """
    blocks = keys.view(*keys.shape[:2], -1, BLOCK_KEYS, keys.shape[-1])
    return torch.cat((blocks.amax(3), blocks.amin(3)), -1).transpose(0, 1)


def scores(query: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """The largest score that any query of a group can have with any key of a page.

    ``query`` is [kv_heads, groups, rows, d], the heads that share a kv head among the rows;
    ``bounds`` [kv_heads, pages, blocks, 2 d]. The result is [kv_heads, groups, pages], unscaled.
    """
    signed = torch.cat((query.clamp(min=0), query.clamp(max=0)), -1)
    products = signed.flatten(1, 2) @ bounds.flatten(1, 2).mT
    return products.view(*query.shape[:3], *bounds.shape[1:3]).amax((2, 4))


def naive_scores(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """The same written out for one group: ``query`` [rows, d], ``keys`` [pages, page tokens, d]."""
    blocks = keys.view(len(keys), -1, BLOCK_KEYS, keys.shape[-1])
    high = query[:, None, None] * blocks.amax(2)
    low = query[:, None, None] * blocks.amin(2)
    return torch.maximum(high, low).sum(-1).amax((0, 2))
