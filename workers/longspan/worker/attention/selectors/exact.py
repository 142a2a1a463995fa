"""The largest score that a query has with any key of a page, from the keys themselves.

No bound is as good: where the keys of a block point in many directions, a block's extremes promise
what no key holds (``selectors.quest``). It reads every key, and no value: half of what attention
over these pages would read, and for a page of a document's queries, of which a fourth is asked, an
eighth of what it would compute.
"""

from __future__ import annotations

import torch


def scores(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """The largest score of any query of a group with any key of a page.

    ``query`` is [kv_heads, groups, rows, d], the heads that share a kv head among the rows;
    ``keys`` [kv_heads, pages, page tokens, d]. The result is [kv_heads, groups, pages], unscaled.
    """
    products = query.flatten(1, 2) @ keys.flatten(1, 2).mT
    return products.view(*query.shape[:3], *keys.shape[1:3]).amax((2, 4))


def naive_scores(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """The same written out for one group: ``query`` [rows, d], ``keys`` [pages, page tokens, d]."""
    return (query[:, None, None] * keys).sum(-1).amax((0, 2))
