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
        parts = []
        for index, (start, end) in enumerate(zip(plan.starts, plan.ends, strict=True)):
            first, last = plan.offsets[index], plan.offsets[index + 1]
            positions = torch.arange(int(end))
            table = torch.from_numpy(plan.block_tables[index]).long()
            pages, offsets = table[positions // PAGE_TOKENS], positions % PAGE_TOKENS
            group = query.shape[1] // layer.keys.shape[1]
            keys, values = (
                x[pages.to(x.device), :, offsets.to(x.device)].float().repeat_interleave(group, 1)
                for x in (layer.keys, layer.values)
            )
            scores = torch.einsum("qhd,khd->qhk", query[first:last].float(), keys) * scale
            distance = torch.arange(int(start), int(end))[:, None] - positions[None]
            hidden = (distance < 0) | (distance >= (window or int(end)))
            scores = scores.masked_fill(hidden[:, None].to(scores.device), float("-inf"))
            lse = scores.logsumexp(-1)
            out = torch.einsum("qhk,khd->qhd", (scores - lse[..., None]).exp(), values)
            parts.append((out.to(query.dtype), lse))
        return Attended(torch.cat([out for out, _ in parts]), torch.cat([lse for _, lse in parts]))
