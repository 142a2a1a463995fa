"""Attention over pages in 8 bits: what a step reads is restored, and any kernel does the rest.

The pages that a layer reads lie restored for as long as the layer runs, so a step needs room for
one layer of its longest sequences. Kernels that read 8 bits themselves would not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.base import Attended, Backend
from longspan.worker.attention.eight_bit import EightBitPages
from longspan.worker.attention.pool import LayerPages
from longspan.worker.attention.rows import AttentionRows


@dataclass(frozen=True, slots=True, eq=False)
class RestoredPlan:
    """A plan over restored pages.

    Attributes:
        pages: int64, those that are restored, in their new order.
        plan: of the kernels, by the new order.
    """

    pages: torch.Tensor
    plan: Any


class EightBitBackend:
    """Any backend, for layers whose pages are in 8 bits."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def plan(self, rows: AttentionRows, device: torch.device) -> RestoredPlan:
        """See ``Backend.plan``."""
        pages, renumbered = _renumbered(rows)
        return RestoredPlan(_tensor(pages, device), self._backend.plan(renumbered, device))

    def attend(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: RestoredPlan,
        *,
        scale: float,
        window: int | None = None,
    ) -> Attended:
        """See ``Backend.attend``."""
        assert isinstance(layer, EightBitPages)
        pages = layer.restore(plan.pages)
        return self._backend.attend(query, pages, plan.plan, scale=scale, window=window)

    def plan_selected(self, rows: AttentionRows, pages: int, device: torch.device) -> RestoredPlan:
        """See ``Backend.plan_selected``."""
        known, renumbered = _renumbered(rows)
        plan = self._backend.plan_selected(renumbered, pages, device)
        return RestoredPlan(_tensor(known, device), plan)

    def attend_selected(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: RestoredPlan,
        selected: torch.Tensor,
        *,
        scale: float,
    ) -> Attended:
        """See ``Backend.attend_selected``; the selected pages are restored behind the known."""
        assert isinstance(layer, EightBitPages)
        more, order = torch.unique(selected, return_inverse=True)
        pages = layer.restore(torch.cat((plan.pages, more)))
        behind = order + len(plan.pages)
        return self._backend.attend_selected(query, pages, plan.plan, behind, scale=scale)


def _renumbered(rows: AttentionRows) -> tuple[npt.NDArray[np.int32], AttentionRows]:
    """The pages that the rows read, and the rows over these alone."""
    pages = _read(rows.block_tables)
    tables = [
        np.where(table >= 0, np.searchsorted(pages, table), table).astype(np.int32)
        for table in rows.block_tables
    ]
    return pages, AttentionRows(rows.starts, rows.lengths, tables)


def _read(tables: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    pages = np.unique(np.concatenate(tables))
    return pages[pages >= 0]


def _tensor(pages: npt.NDArray[np.int32], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(pages.astype(np.int64)).to(device)
