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
