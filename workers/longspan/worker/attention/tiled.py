"""Attention in plain torch, tile by tile: any device, number type and head size.

It computes in float32 and is slow. It serves float32 on a GPU, GPUs that no flash kernel knows, and
MLA, whose latents (576 wide) are beyond every paged kernel that reads them as one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.merge import merge
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.unfolded import UnfoldedSelection

KEY_TILE = 4096
"""Keys copied from their pages at once."""

SCORES = 2**27
"""Scores written out at once: half a GiB."""


@dataclass(frozen=True, slots=True, eq=False)
class TiledPlan:
    """The step's rows, and their block tables on the device."""

    rows: AttentionRows
    tables: list[torch.Tensor]


class TiledBackend(UnfoldedSelection):
    """Softmax over tiles of keys, merged by their log-sum-exp."""

    def __init__(self, *, key_tile: int = KEY_TILE, scores: int = SCORES) -> None:
        self._key_tile = key_tile
        self._scores = scores

    def plan(self, rows: AttentionRows, device: torch.device) -> TiledPlan:
        """See ``Backend.plan``."""
        return TiledPlan(rows, [torch.from_numpy(table).to(device) for table in rows.block_tables])

    def attend(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: TiledPlan,
        *,
        scale: float,
        window: int | None = None,
    ) -> Attended:
        """See ``Backend.attend``."""
        rows, heads = plan.rows, query.shape[1]
        query_tile = max(1, min(self._key_tile, self._scores // (heads * self._key_tile)))
        parts = []
        for sequence, table in enumerate(plan.tables):
            tokens = query[int(rows.offsets[sequence]) : int(rows.offsets[sequence + 1])]
            start = int(rows.starts[sequence])
            for first in range(0, len(tokens), query_tile):
                tile = tokens[first : first + query_tile].float() * scale
                parts.append(self._tile(tile, layer, table, start + first, window))
        out = torch.cat([part.out for part in parts]).to(query.dtype)
        return Attended(out, torch.cat([part.lse for part in parts]))

    def _tile(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        table: torch.Tensor,
        start: int,
        window: int | None,
    ) -> Attended:
        """Queries at [start, start + n), from their newest keys back to the oldest they see.

        The newest tile holds the queries' own positions, so no row is without mass when the
        next tile, in which it may see nothing, is merged.
        """
        oldest = 0 if window is None else max(0, start - window + 1)
        done: Attended | None = None
        for first, last in _tiles(oldest, start + len(query), self._key_tile):
            positions = torch.arange(first, last, device=query.device)
            part = _dense(query, layer, table, positions, start, window)
            done = part if done is None else merge([done, part])
        assert done is not None
        return done


def _tiles(first: int, last: int, size: int) -> Iterator[tuple[int, int]]:
    """[first, last) in tiles from its end."""
    for end in range(last, first, -size):
        yield max(first, end - size), end


def _dense(
    query: torch.Tensor,
    layer: LayerPages,
    table: torch.Tensor,
    positions: torch.Tensor,
    start: int,
    window: int | None,
) -> Attended:
    tokens, heads, dim = query.shape
    pages, offsets = table[positions // PAGE_TOKENS].long(), positions % PAGE_TOKENS
    keys, values = (x[pages, :, offsets].float() for x in (layer.keys, layer.values))
    grouped = query.reshape(tokens, keys.shape[1], -1, dim)
    scores = torch.einsum("qhgd,khd->qhgk", grouped, keys)
    distance = torch.arange(start, start + tokens, device=query.device)[:, None] - positions
    hidden = distance < 0
    if window is not None:
        hidden |= distance >= window
    scores.masked_fill_(hidden[:, None, None], float("-inf"))
    lse = scores.logsumexp(-1, keepdim=True)
    weights = (scores - lse.masked_fill(lse == float("-inf"), 0)).exp_()
    out = torch.einsum("qhgk,khd->qhgd", weights, values)
    return Attended(out.reshape(tokens, heads, -1), lse.reshape(tokens, heads))
