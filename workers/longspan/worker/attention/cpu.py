"""Attention on a CPU: torch's flash kernel over large tiles, never a tokens x tokens mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.cpu_decode import DecodeRows, decode
from longspan.worker.attention.cpu_prefill import PrefillChunk, prefill
from longspan.worker.attention.cpu_selected import attend_pages
from longspan.worker.attention.cpu_sliding import SlidingBlocks, attend_sliding, sliding_blocks
from longspan.worker.attention.equal_lengths import Run, same_lengths
from longspan.worker.attention.merge import merge
from longspan.worker.attention.pool import LayerPages
from longspan.worker.attention.rows import AttentionRows


@dataclass(frozen=True, slots=True, eq=False)
class SelectedPlan:
    """Rows that see selected pages besides.

    Attributes:
        runs: neighbours with equally many queries.
    """

    own: CpuPlan
    runs: Sequence[Run]


@dataclass(frozen=True, slots=True)
class CpuPlan:
    """A step's rows, sorted by what is done with them.

    Attributes:
        chunks: those with more than one query, each with its place in the packed row.
        sliding: those that are taken together, likewise.
        decode: the others, together; None where there are none.
        decode_rows: their places in the packed row.
    """

    tokens: int
    chunks: list[tuple[slice, PrefillChunk]] = field(default_factory=list)
    sliding: list[tuple[slice, SlidingBlocks]] = field(default_factory=list)
    decode: DecodeRows | None = None
    decode_rows: torch.Tensor | None = None


class CpuBackend:
    """Decode reads pages where they lie; prefill copies a sequence's past, tile by tile."""

    def plan(self, rows: AttentionRows, device: torch.device) -> CpuPlan:
        """See ``Backend.plan``."""
        offsets = rows.offsets.tolist()
        sliding = [
            (slice(offsets[blocks.first], offsets[blocks.last]), blocks)
            for blocks in sliding_blocks(rows)
        ]
        together = {row for _, blocks in sliding for row in range(blocks.first, blocks.last)}
        chunks = [
            (
                slice(offsets[index], offsets[index + 1]),
                PrefillChunk(
                    int(rows.starts[index]), int(rows.ends[index]), rows.block_tables[index]
                ),
            )
            for index in range(len(rows.starts))
            if rows.lengths[index] > 1 and index not in together
        ]
        single = [index for index in range(len(rows.starts)) if rows.lengths[index] == 1]
        if not single:
            return CpuPlan(rows.tokens, chunks, sliding)
        tables = [rows.block_tables[index] for index in single]
        places = torch.tensor([offsets[index] for index in single])
        return CpuPlan(rows.tokens, chunks, sliding, DecodeRows(rows.ends[single], tables), places)

    def attend(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: CpuPlan,
        *,
        scale: float,
        window: int | None = None,
    ) -> Attended:
        """See ``Backend.attend``."""
        if plan.decode is not None and not (plan.chunks or plan.sliding):
            return decode(query, layer, plan.decode, scale=scale, window=window)
        out = query.new_empty(plan.tokens, query.shape[1], layer.values.shape[-1])
        lse = query.new_empty(plan.tokens, query.shape[1], dtype=torch.float32)
        for place, chunk in plan.chunks:
            done = prefill(query[place], layer, chunk, scale=scale, window=window)
            out[place], lse[place] = done
        for place, blocks in plan.sliding:
            assert window is None, "rows behind a window of tokens have no pages left out"
            out[place], lse[place] = attend_sliding(query[place], layer, blocks, scale=scale)
        if plan.decode is not None:
            assert plan.decode_rows is not None
            rows = plan.decode_rows
            out[rows], lse[rows] = decode(
                query[rows], layer, plan.decode, scale=scale, window=window
            )
        return Attended(out, lse)

    def plan_selected(self, rows: AttentionRows, pages: int, device: torch.device) -> SelectedPlan:
        """See ``Backend.plan_selected``."""
        return SelectedPlan(self.plan(rows, device), same_lengths(rows))

    def attend_selected(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: SelectedPlan,
        selected: torch.Tensor,
        *,
        scale: float,
    ) -> Attended:
        """See ``Backend.attend_selected``: own keys and selected pages apart, then merged."""
        own = self.attend(query, layer, plan.own, scale=scale)
        return merge([own, attend_pages(query, layer, plan.runs, selected, scale=scale)])
