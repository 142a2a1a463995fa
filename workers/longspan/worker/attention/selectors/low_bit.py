"""The largest score that a query has with any key of a page, from copies of the keys in 4 bits.

Finds what ``selectors.exact`` finds, but where scores are all but equal, and reads a seventh of
what that reads of float32. The query is rounded too, so that a CPU multiplies integers: to 7 bits,
at which no instruction for 8 bits saturates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longspan.worker.attention.four_bit_keys import FourBitKeys, halves, quantised_pages, scaled
from longspan.worker.attention.hadamard import hadamard, rotated
from longspan.worker.attention.selectors import exact
from longspan.worker.attention.selectors.places import Places

LARGEST = 63
FEW_ROWS = 32
"""Of a kv head. More are worth restoring the keys for: products of floats have faster maxima."""

BYTES_AT_ONCE = 2**20
"""Of one head's codes: what is computed from them stays in a core's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """Pages to select from, by their keys in 4 bits; see ``selection.Candidates``.

    Attributes:
        pool: of all pages.
        places: which of them.
    """

    pool: FourBitKeys
    places: Places

    @property
    def products(self) -> int:
        """See ``selection.Candidates``."""
        return len(self.places) * self.pool.scales.shape[2]

    def scores(self, query: torch.Tensor, pages: int) -> torch.Tensor:
        """See ``selection.Candidates``."""
        places = self.places.first(pages)
        codes, scales = rounded(rotated(query, self.pool.rotation))
        rows = codes * scales[..., None]
        if query.device.type != "cpu" or rows[0, ..., 0].numel() > FEW_ROWS:
            tiles = places.tiles(self._at_once(BYTES_AT_ONCE, len(query)))
            return torch.cat(
                [exact.scores(rows, self.pool.restored(tile.index)) for tile in tiles], -1
            )
        columns = codes.flatten(1, 2).to(torch.int8).mT.contiguous()
        found = torch.stack([self._largest(head, one, places) for head, one in enumerate(columns)])
        found = found.mul_(scales.flatten(1)[..., None])
        means = rows.flatten(1, 2) @ self.pool.means[:, places.index].mT
        return found.add_(means).view(*query.shape[:3], pages).amax(2)

    def _at_once(self, numbers: int, kv_heads: int) -> int:
        """Pages whose codes, two to a byte, are so many."""
        return max(1, numbers // (kv_heads * self.pool.codes[0, 0].numel()))

    def _largest(self, head: int, query: torch.Tensor, places: Places) -> torch.Tensor:
        """The largest product in each page, float32 [rows, pages]; ``query`` is int8 [d, rows]."""
        codes, scales = self.pool.codes[head], self.pool.scales[head]
        tiles = places.tiles(self._at_once(BYTES_AT_ONCE, 1))
        return torch.cat([page_maxima(codes[t.index], scales[t.index], query) for t in tiles], -1)


def page_maxima(codes: torch.Tensor, scales: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """The largest product of each query with a page's keys but for their mean.

    ``codes`` is int8 [pages, half, d], ``scales`` [pages, 2 half], ``query`` int8 [d, rows]; the
    result is float32 [rows, pages].
    """
    pages, half, d = codes.shape
    first, whole = (
        torch._int_mm(each.reshape(-1, d), query).T.view(-1, pages, half, 1)
        for each in halves(codes)
    )
    return scaled(first, whole, scales[..., None]).flatten(2).amax(2)


def rounded(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers [.., d] as integers from -63 to 63 and their scales [..], all float32."""
    scales = rows.abs().amax(-1) / LARGEST
    divisor = scales.clamp_min(torch.finfo(scales.dtype).tiny)[..., None]
    return (rows / divisor).round_(), scales


def naive_scores(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """The same written out for one group: ``query`` [rows, d], ``keys`` [pages, page tokens, d]."""
    rotation = hadamard(keys.shape[-1], keys.device)
    codes, scales, means = quantised_pages(rotated(keys, rotation))
    stored = codes.float() * scales.float()[..., None] + means[:, None]
    integers, steps = rounded(rotated(query, rotation))
    return exact.naive_scores(integers * steps[:, None], stored)
