"""Attention over the centroids of far pages: those that a kv head could select and did not.

A centroid stands for the keys of its part of a page: one key, the mean, whose weight is their
number. Its score gets the logarithm of that number, so that its mass is what the keys would have
if each were the mean; by Jensen's inequality they have at least as much. The result is merged
with exact attention by log-sum-exp, which is right only where no page is in both.
"""

from __future__ import annotations

from math import log

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.centroids import Centroids
from longspan.worker.attention.far_pages import NUMBERS, FarPages, Lane
from longspan.worker.attention.layer_plan import SelectingRows
from longspan.worker.attention.merge import joined, merge
from longspan.worker.attention.pool import LayerPages

PAGES_AT_ONCE = 256
"""Of a long document: tensors whose size grows with it leave holes in the memory that they take."""


class FarCentroids:
    """A step's blocks of one selecting policy, ready to look at far pages in every layer.

    Args:
        numbers: see ``NUMBERS``.
    """

    def __init__(
        self, blocks: SelectingRows, device: torch.device, *, numbers: int = NUMBERS
    ) -> None:
        self._pages = FarPages(blocks, device, numbers=numbers)
        self._numbers = numbers

    def attend(
        self, query: torch.Tensor, layer: LayerPages, selected: torch.Tensor | None, *, scale: float
    ) -> Attended:
        """Attend from ``query`` [tokens, heads, d]; each block has at least one far page.

        ``selected`` is int64 [blocks, kv_heads, pages]: a kv head's own are not among its far
        ones; None where none is selected. The result is in float32.
        """
        known = layer.centroids
        assert known is not None
        kv_heads, _, parts, dim = known.keys.shape
        lanes = self._pages.tiles(
            heads=query.shape[1], width=kv_heads * dim, parts=parts, at_once=PAGES_AT_ONCE
        )
        return joined(self._merged(query, known, lane, selected, scale) for lane in lanes)

    def _merged(
        self,
        query: torch.Tensor,
        known: Centroids,
        lane: Lane,
        selected: torch.Tensor | None,
        scale: float,
    ) -> Attended:
        """One tile, so many pages at a time that a long document takes no more memory."""
        blocks, pages = lane.pages.shape
        scores = blocks * lane.run.length * query.shape[1] * known.parts
        step = max(1, min(PAGES_AT_ONCE, self._numbers // scores))
        if step >= pages:
            return _attend(query, known, lane, selected, scale)
        whole = _attend(query, known, lane.part(0, step), selected, scale)
        for first in range(step, pages, step):
            part = lane.part(first, min(first + step, pages))
            whole = merge([whole, _attend(query, known, part, selected, scale)])
        return whole


def _attend(
    query: torch.Tensor, known: Centroids, lane: Lane, selected: torch.Tensor | None, scale: float
) -> Attended:
    run, blocks, kv_heads = lane.run, len(lane.pages), known.keys.shape[0]
    tokens = query[run.query : run.query + blocks * run.length]
    rows = tokens.view(blocks, run.length, kv_heads, -1, query.shape[-1])
    rows = rows.permute(2, 0, 3, 1, 4).flatten(2, 3).float() * scale
    keys, values = (lane.gathered(x).flatten(2, 3) for x in (known.keys, known.values))
    hidden = lane.hidden(selected).repeat_interleave(known.parts, -1)
    scores = (rows @ keys.mT).add_(log(known.tokens))
    scores.masked_fill_(hidden[:, :, None], float("-inf"))
    lse = scores.logsumexp(-1)
    # A kv head may have none of these pages: its weights are 0 then, not 0 / 0.
    finite = lse.clamp(min=torch.finfo(lse.dtype).min)
    out = scores.sub_(finite[..., None]).exp_() @ values
    out = out.view(kv_heads, blocks, -1, run.length, out.shape[-1]).permute(1, 3, 0, 2, 4)
    lse = lse.view(kv_heads, blocks, -1, run.length).permute(1, 3, 0, 2)
    shape = tokens.shape[:2]
    return Attended(out.reshape(*shape, -1), lse.reshape(shape))
