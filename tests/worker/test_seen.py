"""The share of keys that is reported, against a count of every single one."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.naive_policy import unseen_parts, visible
from longspan.worker.attention.policy import FULL, PRESETS, Far, Kind, LayerPolicy, ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.seen import seen_share
from longspan.worker.attention.zones import NO_ZONES, Zones

HYBRID = LayerPolicy(
    kind=Kind.HYBRID, prefix_pages=1, window_pages=1, selected_pages=1, dense_pages=1
)
HIERARCHICAL = replace(HYBRID, kind=Kind.HIERARCHICAL, far=Far.CENTROID)
WINDOW = LayerPolicy(kind=Kind.WINDOW, prefix_pages=1, window_pages=1)


@settings(max_examples=12, deadline=None)
@given(
    tokens=st.integers(1, 1700),
    tail=st.integers(1, 300),
    layers=st.lists(st.sampled_from([FULL, WINDOW, HYBRID, HIERARCHICAL]), min_size=1, max_size=3),
)
def test_the_share_is_that_of_a_count(tokens: int, tail: int, layers: list[LayerPolicy]) -> None:
    """Documents, task and answer, over layers of several policies."""
    task = max(0, tokens - tail)
    zones = Zones(task, min(tokens, task + 40))
    query, keys = torch.randn(tokens, 1, 4), torch.randn(tokens, 1, 4)
    seen = sum(
        int(look(query, keys, layer, zones, stride=4).sum())
        for layer in layers
        for look in ((visible, unseen_parts) if layer.has_centroids else (visible,))
    )
    whole = len(layers) * tokens * (tokens + 1) // 2
    policy = ModelPolicy("counted", tuple(layers))
    assert abs(seen_share(policy, zones, tokens, PAGE_TOKENS) - seen / whole) < 1e-9


def test_the_presets_see_what_they_promise() -> None:
    """At 32k tokens a hybrid layer sees a fifth of the keys, and a window a twelfth."""
    layer = PRESETS["window"].layer
    assert seen_share(ModelPolicy("w", (layer,)), NO_ZONES, 32_768, PAGE_TOKENS) < 0.09
    preset = PRESETS["hybrid"].of(4)
    assert seen_share(preset, NO_ZONES, 16_384, PAGE_TOKENS) == 1.0
    assert seen_share(preset, NO_ZONES, 131_072, PAGE_TOKENS) < 0.35
    hybrid, hierarchical = (
        ModelPolicy("one", (PRESETS[name].layer,)) for name in ("hybrid", "hierarchical")
    )
    less, more = (
        seen_share(policy, NO_ZONES, 131_072, PAGE_TOKENS) for policy in (hybrid, hierarchical)
    )
    assert less < more < less + 0.04, "centroids are a 64th, and the prefix is longer"
