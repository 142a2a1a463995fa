"""Attention over selected pages on a CPU: each kv head's pages are copied side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.cpu_kernel import flash
from longspan.worker.attention.equal_lengths import Run
from longspan.worker.attention.merge import joined
from longspan.worker.attention.pool import LayerPages

COPIED = 2**23
"""Numbers of keys copied for one call: they should stay in the cache until they are read."""


def attend_pages(
    query: torch.Tensor,
    layer: LayerPages,
    runs: Sequence[Run],
    selected: torch.Tensor,
    *,
    scale: float,
) -> Attended:
    """Attend from ``query`` [tokens, heads, d] over whole pages of each row and kv head alone.

    ``selected`` is int64 [rows, kv_heads, pages].
    """
    page_tokens, dim = layer.keys.shape[2:]
    each = selected.shape[1] * selected.shape[2] * page_tokens * dim
    size = max(1, COPIED // each)
    return joined(
        _run(query, layer, Run(first, min(first + size, run.last), at, run.length), selected, scale)
        for run in runs
        for first in range(run.first, run.last, size)
        for at in [run.query + (first - run.first) * run.length]
    )


def _run(
    query: torch.Tensor, layer: LayerPages, run: Run, selected: torch.Tensor, scale: float
) -> Attended:
    """All rows of a run in one call; a pair of row and kv head is one of its batch."""
    rows = run.last - run.first
    kv_heads = layer.keys.shape[1]
    tokens = query[run.query : run.query + rows * run.length]
    batch = tokens.view(rows, run.length, kv_heads, -1, query.shape[-1])
    batch = batch.permute(0, 2, 3, 1, 4).flatten(0, 1)
    pages = selected[run.first : run.last]
    heads = torch.arange(kv_heads)[:, None]
    keys = layer.keys[pages, heads].flatten(2, 3).flatten(0, 1)[:, None]
    values = keys
    if not layer.latent:
        values = layer.values[pages, heads].flatten(2, 3).flatten(0, 1)[:, None]
    out, lse = flash(batch, keys, values, scale=scale)
    out = out.view(rows, kv_heads, *out.shape[1:]).permute(0, 3, 1, 2, 4)
    lse = lse.view(rows, kv_heads, *lse.shape[1:]).permute(0, 3, 1, 2)
    return Attended(
        out.reshape(len(tokens), query.shape[1], -1)[..., : layer.values.shape[-1]],
        lse.reshape(len(tokens), query.shape[1]),
    )
