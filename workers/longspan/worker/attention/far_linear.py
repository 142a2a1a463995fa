"""Linear attention over far pages: those that a kv head could select and did not.

Beside the keys lies the state behind each page. A block's far state is what lies between its first
candidate and its last, without the pages that it selected, which are differences of two states
each; no query of the block precedes it, so nothing within it has to be causal.
"""

from __future__ import annotations

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.far_pages import FarPages, Lane
from longspan.worker.attention.layer_plan import SelectingRows
from longspan.worker.attention.linear.page_sums import PageSums
from longspan.worker.attention.linear.state import normalised
from longspan.worker.attention.merge import joined
from longspan.worker.attention.pool import LayerPages

ROUNDING = 2.0**-21
"""Of a sum: what is left of a feature's, when less is left than this, is rounding."""


class FarLinear:
    """A step's blocks of one selecting policy, ready to look at far pages in every layer."""

    def __init__(self, blocks: SelectingRows, device: torch.device) -> None:
        self._pages = FarPages(blocks, device)
        self._before = torch.from_numpy(blocks.before).to(device)

    def attend(
        self, query: torch.Tensor, layer: LayerPages, selected: torch.Tensor | None, *, scale: float
    ) -> Attended:
        """See ``FarCentroids.attend``; pages are always selected here."""
        known = layer.page_sums
        assert known is not None
        assert selected is not None
        assert scale == known.scale
        features = known.maps.query(query.float() * scale**0.5)
        kv_heads, _, size, width = known.sums.shape
        looked_at = 2 * (1 + selected.shape[-1])
        lanes = self._pages.tiles(
            heads=query.shape[1], width=kv_heads * size * width, parts=looked_at, at_once=1
        )
        return joined(_attend(features, known, lane, self._before, selected) for lane in lanes)


def _attend(
    features: torch.Tensor,
    known: PageSums,
    lane: Lane,
    before: torch.Tensor,
    selected: torch.Tensor,
) -> Attended:
    run, blocks, kv_heads = lane.run, len(lane.pages), known.sums.shape[0]
    rows = features[run.query : run.query + blocks * run.length]
    grouped = rows.view(blocks, run.length, kv_heads, -1, rows.shape[-1])
    states = _states(known, lane, before[run.first : run.last], selected[run.first : run.last])
    seen = torch.einsum("bnkgf,kbfv->bnkgv", grouped, states).flatten(2, 3).flatten(0, 1)
    return normalised(seen[..., :-1], seen[..., -1])


def _states(
    known: PageSums, lane: Lane, before: torch.Tensor, selected: torch.Tensor
) -> torch.Tensor:
    """Each block's far state: [kv_heads, blocks, features, dv + 1].

    ``before`` is int64 [blocks], ``selected`` int64 [blocks, kv_heads, pages].
    """
    last = lane.pages.gather(1, lane.counts[:, None] - 1)
    earlier = torch.cat((before[:, None], lane.pages[:, :-1]), 1)
    whole = known.between(before[None], last.T)
    at = (lane.pages[:, None, None] == selected[..., None]).int().argmax(-1)
    ahead = earlier[:, None].expand(-1, at.shape[1], -1).gather(2, at)
    chosen = known.between(ahead.transpose(0, 1), selected.transpose(0, 1))
    states = whole - chosen.sum(2)
    # A feature whose keys are all selected has no far mass, and rounding is none either.
    rounding = ROUNDING * known.sums[:, last[:, 0], :, -1:]
    return states.where(states[..., -1:] > rounding, 0.0)
