"""How much of full attention a policy computes, counted in keys. Pure.

A centroid counts as one key: it costs as much as one.
"""

from __future__ import annotations

from collections import Counter

from longspan.worker.attention.policy import CENTROID_TOKENS, FULL, LayerPolicy, ModelPolicy
from longspan.worker.attention.zones import Zones


def seen_share(policy: ModelPolicy, zones: Zones, tokens: int, page_tokens: int) -> float:
    """Keys that the queries of a sequence see in all layers, as a share of full attention's."""
    if policy.full or tokens == 0:
        return 1.0
    visible = tokens * (tokens + 1) // 2
    hidden = sum(
        hidden_keys(layer, zones, tokens, page_tokens) * count
        for layer, count in Counter(policy.layers).items()
    )
    return 1.0 - hidden / (visible * len(policy.layers))


def hidden_keys(policy: LayerPolicy, zones: Zones, tokens: int, page_tokens: int) -> int:
    """Keys that one layer leaves out, over all queries of a sequence."""
    if policy == FULL:
        return 0
    hidden = 0
    for page in range(-(-tokens // page_tokens)):
        start, end = page * page_tokens, min((page + 1) * page_tokens, tokens)
        window = policy.first_window_page(page)
        between = window - min(policy.prefix_pages, window)
        far = max(0, between - policy.selected_pages)
        left_out = far * (page_tokens - _summaries(policy, page_tokens))
        hidden += left_out * _sparse_queries(policy, zones, start, end, page_tokens)
    return hidden


def _summaries(policy: LayerPolicy, page_tokens: int) -> int:
    """Keys that a query sees in the place of a far page's."""
    return -(-page_tokens // CENTROID_TOKENS) if policy.has_centroids else 0


def _sparse_queries(
    policy: LayerPolicy, zones: Zones, start: int, end: int, page_tokens: int
) -> int:
    """Queries in [start, end) that do not see everything."""
    if not policy.selects:
        return end - start
    start = max(start, policy.dense_pages * page_tokens)
    dense = 0
    if zones.task_start is not None:
        answer = end if zones.answer_start is None else zones.answer_start
        dense = max(0, min(end, answer) - max(start, zones.task_start))
    return max(0, end - start - dense)
