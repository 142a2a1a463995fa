"""Linear attention over far pages: those that a kv head could select and did not.

The states of single pages are kept beside the keys. A block's far state is the sum over its far
pages, which no query of the block precedes, so nothing within it has to be causal.
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


class FarLinear:
    """A step's blocks of one selecting policy, ready to look at far pages in every layer."""

    def __init__(self, blocks: SelectingRows, device: torch.device) -> None:
        self._pages = FarPages(blocks, device)

    def attend(
        self, query: torch.Tensor, layer: LayerPages, selected: torch.Tensor | None, *, scale: float
    ) -> Attended:
        """See ``FarCentroids.attend``."""
        known = layer.page_sums
        assert known is not None
        assert scale == known.scale
        features = known.maps.query(query * scale**0.5)
        kv_heads, _, size, width = known.sums.shape
        lanes = self._pages.tiles(heads=query.shape[1], width=kv_heads * size * width, parts=1)
        return joined(_attend(features, known, lane, selected) for lane in lanes)


def _attend(
    features: torch.Tensor, known: PageSums, lane: Lane, selected: torch.Tensor | None
) -> Attended:
    run, blocks, kv_heads = lane.run, len(lane.pages), known.sums.shape[0]
    rows = features[run.query : run.query + blocks * run.length]
    grouped = rows.view(blocks, run.length, kv_heads, -1, rows.shape[-1])
    far = (~lane.hidden(selected)).float()
    states = torch.einsum("kbp,kbpfv->kbfv", far, lane.gathered(known.sums))
    seen = torch.einsum("bnkgf,kbfv->bnkgv", grouped, states).flatten(2, 3).flatten(0, 1)
    return normalised(seen[..., :-1], seen[..., -1])
