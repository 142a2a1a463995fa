"""The policies that are compared on the recall model."""

from __future__ import annotations

from benchmarks.recall.architecture import LAYERS
from longspan.worker.attention.policy import PRESETS, Kind, LayerPolicy, ModelPolicy, Selector

STRICT = LayerPolicy(kind=Kind.HYBRID, prefix_pages=1, window_pages=4, selected_pages=8)
"""The preset's layer, but from the first page on."""

STRICTER = LayerPolicy(kind=Kind.HYBRID, prefix_pages=1, window_pages=1, selected_pages=4)


EXACT = LayerPolicy(
    kind=Kind.HYBRID, prefix_pages=1, window_pages=4, selected_pages=8, selector=Selector.EXACT
)
"""As strict, choosing pages by the scores themselves."""


def model_policy(name: str, layer: LayerPolicy) -> ModelPolicy:
    """The same in every layer."""
    return ModelPolicy(name, (layer,) * len(LAYERS))


def compared() -> list[ModelPolicy]:
    """Presets as served beside each other, and ``hybrid`` without its dense layers and pages."""
    return [
        *(preset.of(len(LAYERS)) for preset in PRESETS.values() if not preset.stores),
        model_policy("strict", STRICT),
        model_policy("stricter", STRICTER),
        model_policy("exact", EXACT),
    ]
