"""Selected pages for backends whose sequences share their pages among kv heads.

Every pair of row and kv head becomes a row of its own, over a pool seen as pages of one head. The
selected pages come to the host for it: these backends are the fallback.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from longspan.worker.attention.base import Attended, Backend
from longspan.worker.attention.pool import LayerPages
from longspan.worker.attention.rows import AttentionRows


class UnfoldedSelection:
    """The part of a backend that is about selected pages, by the part that is not."""

    def plan_selected(self, rows: AttentionRows, pages: int, device: torch.device) -> AttentionRows:
        """The rows themselves: what is planned depends on the selection."""
        return rows

    def attend_selected(
        self: Backend,
        query: torch.Tensor,
        layer: LayerPages,
        plan: AttentionRows,
        selected: torch.Tensor,
        *,
        scale: float,
    ) -> Attended:
        """See ``Backend.attend_selected``."""
        kv_heads = layer.keys.shape[1]
        order = torch.from_numpy(np.concatenate(list(_order(plan, kv_heads)))).to(query.device)
        grouped = query.reshape(len(query) * kv_heads, -1, query.shape[-1])[order]
        keys, values = (x.reshape(-1, 1, *x.shape[2:]) for x in (layer.keys, layer.values))
        single = LayerPages(keys, values)
        if layer.latent:
            single = layer
        unfolded = self.plan(_rows(plan, selected.cpu().numpy(), kv_heads), query.device)
        out, lse = self.attend(grouped, single, unfolded, scale=scale)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        return Attended(
            out[place].reshape(len(query), query.shape[1], -1),
            lse[place].reshape(len(query), query.shape[1]),
        )


def _rows(rows: AttentionRows, selected: np.ndarray, kv_heads: int) -> AttentionRows:
    tables = [
        np.concatenate((pages, table)).astype(np.int32) * kv_heads + head
        for table, row in zip(rows.block_tables, selected, strict=True)
        for head, pages in enumerate(row)
    ]
    starts = rows.behind(selected.shape[-1]).starts
    return AttentionRows(np.repeat(starts, kv_heads), np.repeat(rows.lengths, kv_heads), tables)


def _order(rows: AttentionRows, kv_heads: int) -> Iterator[np.ndarray]:
    """Rows of the query, seen as [tokens * kv_heads], in the order of the pairs."""
    for first, last in zip(rows.offsets[:-1], rows.offsets[1:], strict=True):
        for head in range(kv_heads):
            yield np.arange(first, last) * kv_heads + head
