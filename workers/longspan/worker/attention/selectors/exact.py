"""The largest score that a query has with any key of a page, from the keys themselves.

No bound is as good: where the keys of a block point in many directions, a block's extremes promise
what no key holds (``selectors.quest``). It reads every key, and no value: half of what attention
over these pages would read, and for a page of a document's queries, of which a fourth is asked, an
eighth of what it would compute.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longspan.worker.attention.selectors.places import Places

NUMBERS_AT_ONCE = 2**22
"""Numbers of keys scored at once: what is copied of pages that are no neighbours is bounded."""


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """Pages to select from, with all of their keys; see ``selection.Candidates``.

    Attributes:
        pool: [pages, kv_heads, page tokens, d].
        places: which of them.
    """

    pool: torch.Tensor
    places: Places

    @property
    def products(self) -> int:
        """See ``selection.Candidates``."""
        return len(self.places) * self.pool.shape[2]

    def scores(self, query: torch.Tensor, pages: int) -> torch.Tensor:
        """See ``selection.Candidates``."""
        size = max(1, NUMBERS_AT_ONCE // self.pool[0].numel())
        tiles = self.places.first(pages).tiles(size)
        return torch.cat([scores(query, self.pool[tile.index]) for tile in tiles], -1)


def scores(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """The largest score of any query of a group with any key of a page.

    ``query`` is [kv_heads, groups, rows, d], the heads that share a kv head among the rows;
    ``keys`` [pages, kv_heads, page tokens, d], as they lie. The result is
    [kv_heads, groups, pages], unscaled.
    """
    found = []
    for head, rows in enumerate(query.flatten(1, 2)):
        # One product a page: to see the pages of a head as one matrix would copy all keys.
        products = torch.bmm(rows.expand(len(keys), *rows.shape), keys[:, head].mT)
        found.append(products.amax(-1).T)
    return torch.stack(found).view(*query.shape[:3], len(keys)).amax(2)


def naive_scores(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """The same written out for one group: ``query`` [rows, d], ``keys`` [pages, page tokens, d]."""
    return (query[:, None, None] * keys).sum(-1).amax((0, 2))
