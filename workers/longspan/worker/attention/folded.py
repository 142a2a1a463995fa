"""Paged flash kernels on a GPU: kv heads are folded into the batch.

The pool [pages, kv_heads, 256, d] is seen, without a copy, as blocks of one head,
[pages * kv_heads, 256, 1, d]: block id = page * kv_heads + head. To a kernel every pair of
sequence and kv head is then a sequence of its own, which may read blocks of its own choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.merge import joined
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows


@dataclass(frozen=True, slots=True, eq=False)
class StepTables:
    """Sequences of a step, on the device.

    Attributes:
        lengths: int64 [sequences], queries of each.
        keys: int32 [sequences], keys of each.
        block_tables: int32 [sequences, blocks], padded with page 0.
        tokens: queries in all.
        longest_query: most queries of one sequence.
        longest_keys: at least the most keys of one sequence.
    """

    lengths: torch.Tensor
    keys: torch.Tensor
    block_tables: torch.Tensor
    tokens: int
    longest_query: int
    longest_keys: int


@dataclass(frozen=True, slots=True, eq=False)
class FoldedTables:
    """What a kernel is told about a step; a segment is a pair of sequence and kv head.

    Attributes:
        block_table: int32 [segments, blocks].
        keys: int32 [segments].
        key_offsets, query_offsets: int32 [segments + 1], running sums of keys and queries.
        order: int64 [rows]: row r of the folded query is row order[r] of the query seen as
            [tokens * kv_heads, group, d]; None where that is the identity.
        place: the inverse of ``order``.
    """

    block_table: torch.Tensor
    keys: torch.Tensor
    key_offsets: torch.Tensor
    query_offsets: torch.Tensor
    longest_query: int
    longest_keys: int
    order: torch.Tensor | None
    place: torch.Tensor | None

    @property
    def decode(self) -> bool:
        """True where every segment has one query."""
        return self.longest_query == 1

    def starting(self, pages: torch.Tensor) -> FoldedTables:
        """The same tables with the first blocks replaced: ``pages`` [sequences, kv_heads, n]."""
        kv_heads, count = pages.shape[1:]
        heads = torch.arange(kv_heads, device=pages.device)[:, None]
        blocks = (pages * kv_heads + heads).flatten(0, 1).to(self.block_table.dtype)
        return replace(self, block_table=torch.cat((blocks, self.block_table[:, count:]), 1))


class PagedKernel(Protocol):
    """One flash-attn library behind one signature."""

    def __call__(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        tables: FoldedTables,
        *,
        scale: float,
        window: tuple[int, int],
    ) -> Attended:
        """Causal attention of ``query`` [rows, group, d] over ``keys`` [blocks, 256, 1, d].

        ``window`` is flash-attn's (left, right), both inclusive, -1 for no bound. Returns out
        [rows, group, dv] and lse [rows, group].
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Sequences of a step that take one kernel call.

    Attributes:
        rows: their queries in the packed row.
        sequences: which of the step's they are.
    """

    rows: slice
    sequences: slice
    step: StepTables


class FoldedPlan:
    """A step's parts, folded once for each number of kv heads that some layer has.

    Decode rows, which come first, are a part of their own: kernels spread the keys of a
    sequence over the whole GPU only where no sequence of the call has more than one query.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._folded: dict[int, list[tuple[Part, FoldedTables]]] = {}

    def fold(self, kv_heads: int) -> list[tuple[Part, FoldedTables]]:
        """The parts, as layers with this many kv heads see them."""
        if kv_heads not in self._folded:
            self._folded[kv_heads] = [(part, fold(part.step, kv_heads)) for part in self._parts]
        return self._folded[kv_heads]


class FoldedBackend:
    """Attention by a paged flash kernel: one call for decode rows, one for prefill chunks."""

    def __init__(self, kernel: PagedKernel) -> None:
        self._kernel = kernel

    def plan(self, rows: AttentionRows, device: torch.device) -> FoldedPlan:
        """See ``Backend.plan``."""
        sequences = len(rows.lengths)
        decode = int((np.cumprod(rows.lengths == 1)).sum())
        bounds = sorted({0, decode, sequences})
        return FoldedPlan([_part(rows, a, b, device) for a, b in pairwise(bounds)])

    def decode_plan(self, block_tables: torch.Tensor, keys: torch.Tensor) -> FoldedPlan:
        """The plan of a decode step whose integers are on the device: fit for a CUDA graph.

        ``block_tables`` is int32 [sequences, blocks], ``keys`` int32 [sequences]. Shapes and
        host integers do not depend on their contents, which may change between replays.
        """
        sequences, blocks = block_tables.shape
        lengths = torch.ones_like(keys, dtype=torch.int64)
        step = StepTables(lengths, keys, block_tables, sequences, 1, blocks * PAGE_TOKENS)
        return FoldedPlan([Part(slice(0, sequences), slice(0, sequences), step)])

    def attend(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: FoldedPlan,
        *,
        scale: float,
        window: int | None = None,
    ) -> Attended:
        """See ``Backend.attend``."""
        return joined(
            self._attend(query[part.rows], layer, tables, scale, window)
            for part, tables in plan.fold(layer.keys.shape[1])
        )

    def plan_selected(self, rows: AttentionRows, pages: int, device: torch.device) -> FoldedPlan:
        """See ``Backend.plan_selected``: block tables begin with room for the selected pages."""
        return self.plan(rows.behind(pages), device)

    def attend_selected(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: FoldedPlan,
        selected: torch.Tensor,
        *,
        scale: float,
    ) -> Attended:
        """See ``Backend.attend_selected``: still one call, nothing leaves the device."""
        return joined(
            self._attend(
                query[part.rows], layer, tables.starting(selected[part.sequences]), scale, None
            )
            for part, tables in plan.fold(layer.keys.shape[1])
        )

    def _attend(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        tables: FoldedTables,
        scale: float,
        window: int | None,
    ) -> Attended:
        tokens, heads, dim = query.shape
        kv_heads = layer.keys.shape[1]
        rows = query.reshape(tokens * kv_heads, heads // kv_heads, dim)
        if tables.order is not None:
            rows = rows.index_select(0, tables.order)
        keys, values = (x.view(-1, PAGE_TOKENS, 1, x.shape[-1]) for x in (layer.keys, layer.values))
        bounds = (-1, -1) if window is None else (window - 1, 0)
        out, lse = self._kernel(rows, keys, values, tables, scale=scale, window=bounds)
        if tables.place is not None:
            out, lse = out.index_select(0, tables.place), lse.index_select(0, tables.place)
        return Attended(out.reshape(tokens, heads, -1), lse.reshape(tokens, heads))


def padded(tables: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    """Block tables as one array, [sequences, longest], page 0 where a sequence has none."""
    padded = np.zeros((len(tables), max(len(table) for table in tables)), np.int32)
    for row, table in zip(padded, tables, strict=True):
        row[: len(table)] = table
    return padded


def fold(step: StepTables, kv_heads: int) -> FoldedTables:
    """The step's tables with (sequence, kv head) as a sequence, computed on their device."""
    heads = torch.arange(kv_heads, dtype=torch.int32, device=step.keys.device)
    blocks = (step.block_tables[:, None] * kv_heads + heads[:, None]).flatten(0, 1)
    keys, lengths = (
        # Of one sequence the flattened expansion would be a view of stride 0.
        x[:, None].expand(-1, kv_heads).flatten().contiguous()
        for x in (step.keys, step.lengths)
    )
    offsets = _running_sum(lengths)
    order = place = None
    if kv_heads > 1 and step.longest_query > 1:
        order = _order(step, offsets, lengths, kv_heads)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
    return FoldedTables(
        block_table=blocks,
        keys=keys,
        key_offsets=_running_sum(keys).int(),
        query_offsets=offsets.int(),
        longest_query=step.longest_query,
        longest_keys=step.longest_keys,
        order=order,
        place=place,
    )


def _part(rows: AttentionRows, first: int, last: int, device: torch.device) -> Part:
    """Sequences [first, last) of the step."""
    lengths, ends = rows.lengths[first:last], rows.ends[first:last]
    tables = padded(rows.block_tables[first:last])
    step = StepTables(
        lengths=torch.from_numpy(lengths).to(device),
        keys=torch.from_numpy(ends.astype(np.int32)).to(device),
        block_tables=torch.from_numpy(tables).to(device),
        tokens=int(lengths.sum()),
        longest_query=int(lengths.max()),
        longest_keys=int(ends.max()),
    )
    queries = slice(int(rows.offsets[first]), int(rows.offsets[last]))
    return Part(queries, slice(first, last), step)


def _order(
    step: StepTables, offsets: torch.Tensor, lengths: torch.Tensor, kv_heads: int
) -> torch.Tensor:
    rows = step.tokens * kv_heads
    segments = torch.arange(len(lengths), device=lengths.device)
    # Told the size of its result, this does not wait for the device.
    segment = segments.repeat_interleave(lengths, output_size=rows)
    within = torch.arange(rows, device=lengths.device) - offsets[segment]
    first_token = _running_sum(step.lengths)[segment // kv_heads]
    return (first_token + within) * kv_heads + segment % kv_heads


def _running_sum(values: torch.Tensor) -> torch.Tensor:
    """0 and the sums up to each value: int64 [len + 1]."""
    return torch.nn.functional.pad(values.cumsum(0, dtype=torch.int64), (1, 0))
