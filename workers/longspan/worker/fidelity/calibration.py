"""Which layers need the whole document, from what a window would lose in each. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

from longspan.worker.attention.policy import FULL, LayerPolicy


@dataclass(frozen=True, slots=True)
class LayerLoss:
    """What a window would lose in one layer.

    Attributes:
        lost_mass: of each kv head, the mean share of full attention's softmax mass outside the
            first pages and the window, in its worst query head.
        output_error: of each kv head, the relative error of its output without that mass.
    """

    lost_mass: tuple[float, ...]
    output_error: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The geometric mean of both in the worst kv head: large only where the window misses
        looks that change the output."""
        pairs = zip(self.lost_mass, self.output_error, strict=True)
        return max(sqrt(lost * error) for lost, error in pairs)

    def needs(self, keep_mass: float) -> tuple[bool, ...]:
        """Which kv heads need the whole document: a window keeps less than ``keep_mass``."""
        return tuple(lost > 1.0 - keep_mass for lost in self.lost_mass)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How layers are chosen.

    Attributes:
        window: what a layer gets that does not need the document.
        kept: what one gets that does.
        keep_mass: a layer needs the document where a kv head would keep less under the window.
        full_layers: so many layers, those that lose most, need it instead: an int counts them, a
            float is their share of the layers that have a choice; None leaves it to ``keep_mass``.
    """

    window: LayerPolicy
    kept: LayerPolicy = FULL
    keep_mass: float = 0.95
    full_layers: int | float | None = None


def chosen(losses: Sequence[LayerLoss | None], choice: Choice) -> tuple[LayerPolicy, ...]:
    """A policy for each layer; None is a layer with a window of its own, which it keeps."""
    ranked = ranking(losses)
    if choice.full_layers is None:
        needing = {i for i in ranked if any(_loss(losses, i).needs(choice.keep_mass))}
    else:
        share = isinstance(choice.full_layers, float)
        count = ceil(choice.full_layers * len(ranked)) if share else choice.full_layers
        needing = set(ranked[: int(count)])
    return tuple(
        FULL if loss is None else choice.kept if index in needing else choice.window
        for index, loss in enumerate(losses)
    )


def ranking(losses: Sequence[LayerLoss | None]) -> list[int]:
    """The layers that have a choice, those that lose most first."""
    free = [index for index, loss in enumerate(losses) if loss is not None]
    return sorted(free, key=lambda index: -_loss(losses, index).loss)


def described(losses: Sequence[LayerLoss | None], keep_mass: float) -> list[dict[str, Any]]:
    """The numbers of each layer and kv head, as ``policy.json`` keeps them."""
    return [
        {"own_window": True}
        if loss is None
        else {
            "loss": _short(loss.loss),
            "lost_mass": [_short(one) for one in loss.lost_mass],
            "output_error": [_short(one) for one in loss.output_error],
            "needs_document": list(loss.needs(keep_mass)),
        }
        for loss in losses
    ]


def _loss(losses: Sequence[LayerLoss | None], index: int) -> LayerLoss:
    loss = losses[index]
    assert loss is not None
    return loss


def _short(number: float) -> float:
    return round(number, 5)
