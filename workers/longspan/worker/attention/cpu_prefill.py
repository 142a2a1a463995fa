"""Prefill on a CPU: a chunk of queries over a sequence's past and over itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.cpu_kernel import flash
from longspan.worker.attention.merge import joined, merge
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages

KEY_TILE = 8192
"""Keys copied from their pages at once: bounds the memory of a step."""

MOST_PARTS = 8
"""Partial results kept until they are merged: each is as large as the chunk's output."""

WINDOW_TILE = 512
"""Queries of one tile where a sliding window needs a mask at its edges."""


@dataclass(frozen=True, slots=True, eq=False)
class PrefillChunk:
    """Queries at the positions [start, end) of one sequence."""

    start: int
    end: int
    table: npt.NDArray[np.int32]


def prefill(
    query: torch.Tensor, layer: LayerPages, chunk: PrefillChunk, *, scale: float, window: int | None
) -> Attended:
    """Attend from ``query`` [tokens, heads, d]; see ``Backend.attend``."""
    keys = _Keys(layer, chunk.table, scale)
    if window is None or chunk.end <= window:
        return _rows(merge(_full(query, keys, chunk)))
    tiles = []
    for start in range(chunk.start, chunk.end, WINDOW_TILE):
        end = min(start + WINDOW_TILE, chunk.end)
        rows = query[start - chunk.start : end - chunk.start]
        tiles.append(_rows(merge(_windowed(rows, keys, start, end, window))))
    return joined(tiles)


def _full(query: torch.Tensor, keys: _Keys, chunk: PrefillChunk) -> list[Attended]:
    """Parts of the past and the chunk itself; merged on the way, or they would add up."""
    parts = [keys.attend(query, chunk.start, chunk.end, causal=True)]
    for first in range(0, chunk.start, KEY_TILE):
        parts.append(keys.attend(query, first, min(first + KEY_TILE, chunk.start)))
        if len(parts) == MOST_PARTS:
            parts = [merge(parts)]
    return parts


def _windowed(
    query: torch.Tensor, keys: _Keys, start: int, end: int, window: int
) -> list[Attended]:
    """Disjoint parts: keys that only the first rows see, that all see, and the tile itself."""
    first = max(0, start - window + 1)
    everywhere = max(first, end - window)
    if everywhere >= start:
        return [keys.attend(query, first, end, mask=_band(start, end, first, end, window))]
    parts = [keys.attend(query, start, end, causal=True)]
    if first < everywhere:
        # The last row sees none of these keys: its scores would be divided by nothing.
        band = _band(start, end - 1, first, everywhere, window)
        edge = keys.attend(query[:-1], first, everywhere, mask=band)
        parts.append(_padded(edge, end - start))
    parts += [
        keys.attend(query, at, min(at + KEY_TILE, start))
        for at in range(everywhere, start, KEY_TILE)
    ]
    return parts


def _band(start: int, end: int, first: int, last: int, window: int) -> torch.Tensor:
    """0 where the query at a row in [start, end) sees the key in [first, last), else -inf."""
    distance = torch.arange(start, end)[:, None] - torch.arange(first, last)[None]
    mask = torch.zeros(distance.shape)
    return mask.masked_fill_((distance < 0) | (distance >= window), float("-inf"))


def _padded(part: Attended, rows: int) -> Attended:
    """The same part for more queries, which see none of its keys. Layout as the kernel's."""
    missing = rows - part.out.shape[2]
    return Attended(
        torch.nn.functional.pad(part.out, (0, 0, 0, missing)),
        torch.nn.functional.pad(part.lse, (0, missing), value=float("-inf")),
    )


def _rows(attended: Attended) -> Attended:
    """From the kernel's layout, [1, heads, tokens, d], to the packed row's."""
    return Attended(attended.out[0].transpose(0, 1), attended.lse[0].transpose(0, 1))


@dataclass(frozen=True, slots=True, eq=False)
class _Keys:
    """One sequence's keys and values, copied from its pages as they are needed."""

    layer: LayerPages
    table: npt.NDArray[np.int32]
    scale: float

    def attend(
        self,
        query: torch.Tensor,
        first: int,
        last: int,
        *,
        causal: bool = False,
        mask: torch.Tensor | None = None,
    ) -> Attended:
        """Attend over the keys [first, last); out and lse in the kernel's layout."""
        keys = self._copy(self.layer.keys, first, last)
        values = keys if self.layer.latent else self._copy(self.layer.values, first, last)
        if mask is not None:
            mask = mask.to(query.dtype)[None, None]
        rows = query.transpose(0, 1)[None]
        out, lse = flash(rows, keys, values, scale=self.scale, causal=causal, mask=mask)
        return Attended(out[..., : self.layer.values.shape[-1]], lse)

    def _copy(self, pages: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """The tokens [first, last) as [1, kv_heads, tokens, d]."""
        lowest = first // PAGE_TOKENS
        table = torch.from_numpy(self.table[lowest : -(-last // PAGE_TOKENS)]).long()
        _, kv_heads, _, dim = pages.shape
        chosen = pages[table].transpose(0, 1).reshape(1, kv_heads, -1, dim)
        offset = lowest * PAGE_TOKENS
        return chosen[:, :, first - offset : last - offset]
