"""Attention where chosen pages lie on the host: they are copied, and any kernel does the rest.

A step may choose more pages than there are slots for. Its rows are then computed in turns, as many
at a time as fit even if no two of them choose the same page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from longspan.worker.attention.base import Attended, Backend
from longspan.worker.attention.host_pages import HostPages
from longspan.worker.attention.merge import joined
from longspan.worker.attention.pool import LayerPages
from longspan.worker.attention.rows import AttentionRows


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """Rows whose chosen pages are on the device at once.

    Attributes:
        rows: which of the step's they are.
        queries: theirs in the packed row.
        plan: of the kernels.
    """

    rows: slice
    queries: slice
    plan: Any


class HostBackend:
    """Any backend, for layers whose far pages lie on the host.

    Args:
        slots: of a kv head in each layer.
    """

    def __init__(self, backend: Backend, slots: int) -> None:
        self._backend = backend
        self._slots = slots

    def plan(self, rows: AttentionRows, device: torch.device) -> Any:
        """See ``Backend.plan``."""
        return self._backend.plan(rows, device)

    def attend(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: Any,
        *,
        scale: float,
        window: int | None = None,
    ) -> Attended:
        """See ``Backend.attend``: over frames alone."""
        return self._backend.attend(query, layer, plan, scale=scale, window=window)

    def plan_selected(
        self, rows: AttentionRows, pages: int, device: torch.device
    ) -> Sequence[Turn]:
        """See ``Backend.plan_selected``; one row's pages must fit into the slots."""
        assert pages <= self._slots
        size, offsets = self._slots // pages, rows.offsets
        turns = []
        for first in range(0, len(rows.starts), size):
            part = slice(first, min(first + size, len(rows.starts)))
            plan = self._backend.plan_selected(_part(rows, part), pages, device)
            queries = slice(int(offsets[part.start]), int(offsets[part.stop]))
            turns.append(Turn(part, queries, plan))
        return turns

    def attend_selected(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: Sequence[Turn],
        selected: torch.Tensor,
        *,
        scale: float,
    ) -> Attended:
        """See ``Backend.attend_selected``; ``selected`` are numbers of pages."""
        assert isinstance(layer, HostPages)
        return joined(
            self._backend.attend_selected(
                query[turn.queries], layer, turn.plan, layer.bring(selected[turn.rows]), scale=scale
            )
            for turn in plan
        )


def _part(rows: AttentionRows, part: slice) -> AttentionRows:
    return AttentionRows(rows.starts[part], rows.lengths[part], rows.block_tables[part])
