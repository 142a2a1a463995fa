"""The flash kernel that torch brings along, over keys copied from their pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.merge import merge
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.unfolded import UnfoldedSelection

KEY_TILE = 65_536
"""Keys copied for one call, where no window or chunk asks for more: bounds a step's memory."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Queries and keys of one sequence that meet in one call.

    Attributes:
        sequence: index in the step.
        queries: how many it has.
        first, last: the keys [first, last).
    """

    sequence: int
    queries: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """The arguments of one kernel call.

    Attributes:
        queries: rows of the packed row.
        pages, offsets: int64 [keys], where the keys lie.
        query_offsets, key_offsets: int32 [pieces + 1].
        causal: False where all keys are older than all queries.
    """

    queries: slice
    pages: torch.Tensor
    offsets: torch.Tensor
    query_offsets: torch.Tensor
    key_offsets: torch.Tensor
    longest_query: int
    longest_keys: int
    causal: bool


class VarlenPlan:
    """The calls of a step, made once for each window that some layer has."""

    def __init__(self, rows: AttentionRows, device: torch.device, key_tile: int) -> None:
        self._rows = rows
        self._device = device
        self._key_tile = key_tile
        self._tables = [torch.from_numpy(table).to(device) for table in rows.block_tables]
        self._calls: dict[int | None, list[Call]] = {}

    @property
    def tokens(self) -> int:
        """Queries of the step."""
        return self._rows.tokens

    def calls(self, window: int | None) -> list[Call]:
        """The causal calls, which share the queries out among them, then those over older keys."""
        if window not in self._calls:
            last, older = pieces(self._rows, window, self._key_tile)
            causal = [self._call(group, True) for group in grouped(last, self._key_tile)]
            self._calls[window] = [*causal, *(self._call([piece], False) for piece in older)]
        return self._calls[window]

    def _call(self, group: Sequence[Piece], causal: bool) -> Call:
        offsets = self._rows.offsets
        queries = [piece.queries for piece in group]
        keys = [piece.last - piece.first for piece in group]
        positions = [torch.arange(p.first, p.last, device=self._device) for p in group]
        pages = [
            self._tables[piece.sequence][position // PAGE_TOKENS]
            for piece, position in zip(group, positions, strict=True)
        ]
        first, last = group[0].sequence, group[-1].sequence
        return Call(
            slice(int(offsets[first]), int(offsets[last + 1])),
            torch.cat(pages).long(),
            torch.cat(positions) % PAGE_TOKENS,
            self._running_sum(queries),
            self._running_sum(keys),
            max(queries),
            max(keys),
            causal,
        )

    def _running_sum(self, counts: Sequence[int]) -> torch.Tensor:
        return torch.tensor([0, *np.cumsum(counts)], dtype=torch.int32, device=self._device)


class VarlenBackend(UnfoldedSelection):
    """Attention by torch's own flash kernel, over copies of the keys.

    Its paged form is not used: where torch 2.13 splits the keys of packed sequences, it leaves
    rows of the result unwritten.

    Args:
        kernel: ``torch.nn.attention.varlen.varlen_attn``, told to take grouped heads where it
            asks to be told.
        return_lse: ``torch.nn.attention.varlen.AuxRequest(lse=True)``.
    """

    def __init__(
        self, kernel: Callable[..., Any], return_lse: Any, *, key_tile: int = KEY_TILE
    ) -> None:
        self._kernel = kernel
        self._return_lse = return_lse
        self._key_tile = key_tile

    def plan(self, rows: AttentionRows, device: torch.device) -> VarlenPlan:
        """See ``Backend.plan``."""
        return VarlenPlan(rows, device, self._key_tile)

    def attend(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: VarlenPlan,
        *,
        scale: float,
        window: int | None = None,
    ) -> Attended:
        """See ``Backend.attend``."""
        calls = plan.calls(window)
        if len(calls) == 1:
            return self._attend(query, layer, calls[0], scale, window)
        out = query.new_empty(plan.tokens, query.shape[1], layer.values.shape[-1])
        lse = query.new_empty(plan.tokens, query.shape[1], dtype=torch.float32)
        for call in calls:
            rows = call.queries
            part = self._attend(query[rows], layer, call, scale, window)
            seen = part if call.causal else merge([Attended(out[rows], lse[rows]), part])
            out[rows], lse[rows] = seen
        return Attended(out, lse)

    def _attend(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        call: Call,
        scale: float,
        window: int | None,
    ) -> Attended:
        bounds = (-1 if window is None else window - 1, 0) if call.causal else (-1, -1)
        keys, values = (x[call.pages, :, call.offsets] for x in (layer.keys, layer.values))
        out, lse = self._kernel(
            query,
            keys,
            values,
            call.query_offsets,
            call.key_offsets,
            call.longest_query,
            call.longest_keys,
            return_aux=self._return_lse,
            scale=scale,
            window_size=bounds,
        )
        # Its docstring says [tokens, heads]; its registered shape is flash-attn's [heads, tokens].
        return Attended(out, lse.T)


def pieces(
    rows: AttentionRows, window: int | None, key_tile: int
) -> tuple[list[Piece], list[Piece]]:
    """Each sequence's newest keys, its own chunk among them, and tiles of the older ones.

    With a window there are no older ones: all that it lets through is in the first list.
    """
    newest, older = [], []
    for sequence, (start, end) in enumerate(
        zip(rows.starts.tolist(), rows.ends.tolist(), strict=True)
    ):
        first = 0 if window is None else max(0, start - window + 1)
        while window is None and start - first >= key_tile:
            older.append(Piece(sequence, end - start, first, first + key_tile))
            first += key_tile
        newest.append(Piece(sequence, end - start, first, end))
    return newest, older


def grouped(pieces: Sequence[Piece], key_tile: int) -> Iterator[list[Piece]]:
    """Neighbours together while they have at most ``key_tile`` keys.

    Decode rows keep to themselves: only a call without longer queries spreads the keys of a
    sequence over the whole GPU.
    """
    group: list[Piece] = []
    keys = 0
    for piece in pieces:
        more = piece.last - piece.first
        other_kind = group and (group[-1].queries == 1) != (piece.queries == 1)
        if group and (other_kind or keys + more > key_tile):
            yield group
            group, keys = [], 0
        group.append(piece)
        keys += more
    yield group
