"""The policies that are compared on the recall model."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.recall.architecture import LAYERS
from longspan.worker.attention.policy import (
    PRESETS,
    Far,
    Kind,
    LayerPolicy,
    ModelPolicy,
    Selector,
)

STRICT = replace(PRESETS["hybrid"].layer, dense_pages=0)
"""The preset's layer, but from the first page on."""

STRICTER = replace(STRICT, window_pages=1, selected_pages=4)

EXACT = replace(STRICT, selector=Selector.EXACT)
"""As strict, choosing pages by the scores themselves."""

LOW_BIT = replace(STRICT, selector=Selector.LOW_BIT)
"""The same by keys in 4 bits."""


def model_policy(name: str, layer: LayerPolicy) -> ModelPolicy:
    """The same in every layer."""
    return ModelPolicy(name, (layer,) * len(LAYERS))


FAR = {
    name: model_policy(name, replace(STRICTER, kind=Kind.HIERARCHICAL, far=far))
    for name, far in (("none", Far.NONE), ("centroids", Far.CENTROID), ("linear", Far.LINEAR))
}
"""``stricter`` with each far state."""

LINEAR = FAR["linear"]


def compared() -> list[ModelPolicy]:
    """Presets as served beside each other, and ``hybrid`` without its dense layers and pages."""
    return [
        *(preset.of(len(LAYERS)) for preset in PRESETS.values() if not preset.stores),
        model_policy("strict", STRICT),
        model_policy("stricter", STRICTER),
        model_policy("exact", EXACT),
        model_policy("4bit", LOW_BIT),
    ]
