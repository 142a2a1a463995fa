"""The one contract of all attention backends."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch

from longspan.worker.attention.pool import LayerPages
from longspan.worker.attention.rows import AttentionRows


class Attended(NamedTuple):
    """Attention over one set of keys.

    Attributes:
        out: [tokens, heads, dv], in the query's number type.
        lse: float32 [tokens, heads], natural logarithm of the sum of exp(score).
    """

    out: torch.Tensor
    lse: torch.Tensor


class Backend(Protocol):
    """Attention over pages. What differs between backends is how, never what."""

    def plan(self, rows: AttentionRows, device: torch.device) -> Any:
        """Everything about the step that all layers share; called once a step."""
        ...

    def attend(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: Any,
        *,
        scale: float,
        window: int | None = None,
    ) -> Attended:
        """Attend from ``query`` [tokens, heads, d] over the pages of one layer.

        The step's own keys are in their pages already. Head h reads kv head
        h // (heads / kv_heads). With a window w, a query at position i sees keys (i - w, i].
        """
        ...

    def plan_selected(self, rows: AttentionRows, pages: int, device: torch.device) -> Any:
        """Everything about rows that see so many selected pages besides; once a step."""
        ...

    def attend_selected(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: Any,
        selected: torch.Tensor,
        *,
        scale: float,
    ) -> Attended:
        """As ``attend``, over the rows' own keys and over whole pages of ``selected``.

        ``selected`` is int64 [rows, kv_heads, pages] on the query's device. A row's queries see
        all of its selected pages, each kv head its own; none is among the row's own pages.
        """
        ...
