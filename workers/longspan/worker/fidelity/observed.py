"""A decoder whose attention can be watched while the engine runs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.pool import LayerPages
from longspan.worker.attention.step_attention import LayerAttention
from longspan.worker.models.seam import Step


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one layer attended to in one step.

    Attributes:
        index: the layer's.
        query: [tokens, heads, d].
        pages: the layer's, the step's own keys among them.
        out: [tokens, heads, dv], what the policy gave.
        scale: of the scores.
        window: the layer's own, that it was trained with.
    """

    index: int
    query: torch.Tensor
    pages: LayerPages
    out: torch.Tensor
    scale: float
    window: int | None


Observer: TypeAlias = Callable[[Look], None]


class ObservedModel(torch.nn.Module):
    """Passes everything on to a decoder that was loaded with the seam's attention.

    Attributes:
        observer: is shown each layer's attention; None: nobody looks.
        kept: of how many last tokens of a row the logits are wanted; None: of those that the
            caller asks for.
        observed_s: seconds spent in observers so far.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._model = model
        self.observer: Observer | None = None
        self.kept: int | None = None
        self.observed_s = 0.0

    def forward(self, **inputs: Any) -> Any:
        """See the decoder's own."""
        step: Step = inputs["longspan"]
        if self.observer is not None:
            inputs["longspan"] = replace(step, attention=_Watched(step.attention, self))
        if self.kept is not None:
            ids = inputs["input_ids"]
            tokens = ids.shape[-1]
            inputs["logits_to_keep"] = torch.arange(tokens - self.kept, tokens, device=ids.device)
        return self._model(**inputs)

    def show(self, look: Look) -> None:
        """Show a layer's attention to the observer."""
        assert self.observer is not None
        started = time.perf_counter()
        self.observer(look)
        self.observed_s += time.perf_counter() - started


@dataclass(frozen=True, slots=True, eq=False)
class _Watched:
    attention: LayerAttention
    model: ObservedModel

    def attend(
        self,
        index: int,
        query: torch.Tensor,
        layer: LayerPages,
        *,
        scale: float,
        window: int | None,
    ) -> Attended:
        """See ``LayerAttention``."""
        attended = self.attention.attend(index, query, layer, scale=scale, window=window)
        self.model.show(Look(index, query, layer, attended.out, scale, window))
        return attended
