"""Which pages single queries of a step see: read off the plan that the engine follows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.layer_plan import layer_plan
from longspan.worker.attention.policy import LayerPolicy
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.selection import Selection
from longspan.worker.attention.zones import Zones

Integers = npt.NDArray[np.int64]
Seen = npt.NDArray[np.bool_]


def seen_pages(
    rows: AttentionRows,
    policy: LayerPolicy,
    zones: Zones,
    query: torch.Tensor,
    layer: LayerPages,
    sampled: Integers,
) -> Seen:
    """Pages of the one chunk in ``rows`` that its queries see: bool [sampled, kv_heads, pages].

    A page counts from the chunk's first; of the last one a query sees what is not behind it.
    ``query`` is [tokens, heads, d], the whole chunk: pages are selected here by the same code,
    from the same numbers, as in the step. ``sampled`` are places in the chunk.
    """
    [table] = rows.block_tables
    place = np.full(int(table.max()) + 1, -1)
    place[table] = np.arange(len(table))
    seen = np.zeros((len(sampled), layer.keys.shape[1], len(table)), np.bool_)
    plan = layer_plan(rows, [policy], [zones])
    if plan.fixed is not None:
        _mark(seen, sampled, plan.fixed.queries, plan.fixed.rows, place)
    for blocks in plan.selecting:
        _mark(seen, sampled, blocks.queries, blocks.rows, place)
        if blocks.whole:
            sampled_rows = _of_rows(sampled, blocks.queries, blocks.rows)
            for of_block, pages in zip(sampled_rows, blocks.candidates, strict=True):
                seen[of_block[:, None], :, place[pages]] = True
            continue
        own = query[torch.from_numpy(blocks.queries).to(query.device)]
        chosen = Selection(blocks, query.device).select(own, layer).cpu().numpy()
        for block, of_block in enumerate(_of_rows(sampled, blocks.queries, blocks.rows)):
            for head, pages in enumerate(chosen[block]):
                seen[of_block[:, None], head, place[pages]] = True
    return seen


def seen_keys(seen: Seen, tokens: int, heads: int, device: torch.device) -> torch.Tensor:
    """The same by key and query head: bool [sampled, heads, tokens]."""
    by_key = torch.from_numpy(seen).to(device).repeat_interleave(PAGE_TOKENS, -1)[..., :tokens]
    return by_key.repeat_interleave(heads // seen.shape[1], 1)


def _mark(
    seen: Seen, sampled: Integers, queries: Integers, rows: AttentionRows, place: Integers
) -> None:
    """The pages of each row are seen by the sampled queries in it."""
    for of_row, pages in zip(_of_rows(sampled, queries, rows), rows.block_tables, strict=True):
        seen[of_row[:, None], :, place[pages]] = True


def _of_rows(sampled: Integers, queries: Integers, rows: AttentionRows) -> list[Integers]:
    """Which of the sampled queries each row has."""
    offsets = rows.offsets
    return [
        np.flatnonzero(np.isin(sampled, queries[offsets[row] : offsets[row + 1]]))
        for row in range(len(rows.lengths))
    ]
