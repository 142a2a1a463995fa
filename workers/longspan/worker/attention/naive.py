"""The definition of paged attention, one chunk at a time, in float32."""

from __future__ import annotations

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows


class NaiveBackend:
    """softmax(q kᵀ · scale + mask) v with every score written out; for tests."""

    def plan(self, rows: AttentionRows, device: torch.device) -> AttentionRows:
        """The rows themselves."""
        return rows

    def attend(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: AttentionRows,
        *,
        scale: float,
        window: int | None = None,
    ) -> Attended:
        """See ``Backend.attend``."""
        return self._all(query, layer, plan, None, scale, window)

    def plan_selected(self, rows: AttentionRows, pages: int, device: torch.device) -> AttentionRows:
        """The rows themselves."""
        return rows

    def attend_selected(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: AttentionRows,
        selected: torch.Tensor,
        *,
        scale: float,
    ) -> Attended:
        """See ``Backend.attend_selected``."""
        return self._all(query, layer, plan, selected, scale, None)

    def _all(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        rows: AttentionRows,
        selected: torch.Tensor | None,
        scale: float,
        window: int | None,
    ) -> Attended:
        parts = []
        for index in range(len(rows.starts)):
            part = query[int(rows.offsets[index]) : int(rows.offsets[index + 1])]
            pages = None if selected is None else selected[index]
            parts.append(_chunk(part.float() * scale, layer, rows, index, pages, window))
        out = torch.cat([out for out, _ in parts]).to(query.dtype)
        return Attended(out, torch.cat([lse for _, lse in parts]))


def _chunk(
    query: torch.Tensor,
    layer: LayerPages,
    rows: AttentionRows,
    index: int,
    selected: torch.Tensor | None,
    window: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One chunk's queries, scaled, over its own keys and those of selected pages."""
    start, end = int(rows.starts[index]), int(rows.ends[index])
    positions = torch.arange(end)
    table = torch.from_numpy(rows.block_tables[index]).long()
    pages, offsets = table[positions // PAGE_TOKENS], positions % PAGE_TOKENS
    keys, values = (
        x[pages.to(x.device), :, offsets.to(x.device)].float() for x in (layer.keys, layer.values)
    )
    distance = torch.arange(start, end)[:, None] - positions[None]
    hidden = (distance < 0) | (distance >= (window or end))
    if selected is not None:
        heads = torch.arange(len(selected), device=selected.device)[:, None]
        more_keys, more_values = (
            x[selected, heads].float().flatten(1, 2).transpose(0, 1)
            for x in (layer.keys, layer.values)
        )
        hidden = torch.nn.functional.pad(hidden, (len(more_keys), 0), value=False)
        keys, values = torch.cat((more_keys, keys)), torch.cat((more_values, values))
    group = query.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(group, 1) for x in (keys, values))
    scores = torch.einsum("qhd,khd->qhk", query, keys)
    scores = scores.masked_fill(hidden[:, None].to(scores.device), float("-inf"))
    lse = scores.logsumexp(-1)
    return torch.einsum("qhk,khd->qhd", (scores - lse[..., None]).exp(), values), lse
