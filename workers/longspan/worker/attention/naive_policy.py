"""The definition of the policies: a whole sequence at once, every score written out; for tests."""

from __future__ import annotations

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.linear.feature_maps import FeatureMap
from longspan.worker.attention.linear.naive import attend_beyond
from longspan.worker.attention.policy import CENTROID_TOKENS, Far, Kind, LayerPolicy, Selector
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.selectors import exact, low_bit, quest
from longspan.worker.attention.zones import Zones

SCORES = {
    Selector.QUEST: quest.naive_scores,
    Selector.EXACT: exact.naive_scores,
    Selector.LOW_BIT: low_bit.naive_scores,
}


def attend_naively(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    policy: LayerPolicy,
    zones: Zones,
    *,
    scale: float,
    stride: int,
    maps: FeatureMap | None = None,
) -> Attended:
    """Attention of a sequence over itself.

    ``query`` is [n, heads, d], ``keys`` and ``values`` [n, kv_heads, d]. Of a page's queries
    those at every ``stride``-th position, and the last, choose the pages for all. ``maps`` are
    those of a linear far state.
    """
    group = query.shape[1] // keys.shape[1]
    seen = visible(query, keys, policy, zones, stride=stride)
    if policy.far is Far.LINEAR:
        assert maps is not None
        far = unseen_pages(seen)
        return attend_beyond(seen, far, query, keys, values, maps, scale=scale)
    weights = torch.ones(len(keys))
    if policy.far is Far.CENTROID:
        far = unseen_parts(query, keys, policy, zones, stride=stride)
        keys, values = (torch.cat((x.float(), part_means(x))) for x in (keys, values))
        seen = torch.cat((seen, far), -1)
        weights = torch.cat((weights, torch.full((far.shape[-1],), float(CENTROID_TOKENS))))
    keys, values = (x.float().repeat_interleave(group, 1) for x in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", query.float() * scale, keys)
    scores = (scores + weights.log()).masked_fill(~seen.repeat_interleave(group, 0), float("-inf"))
    lse = scores.logsumexp(-1)
    out = torch.einsum("hqk,khd->qhd", (scores - lse[..., None]).exp(), values)
    return Attended(out.to(query.dtype), lse.T)


def visible(
    query: torch.Tensor,
    keys: torch.Tensor,
    policy: LayerPolicy,
    zones: Zones,
    *,
    stride: int,
) -> torch.Tensor:
    """Which keys each query sees: bool [kv_heads, n, n]; the queries choose their pages here."""
    tokens, kv_heads = keys.shape[:2]
    positions = torch.arange(tokens)
    causal = positions[:, None] >= positions
    if policy.kind is Kind.FULL:
        return causal.expand(kv_heads, -1, -1)
    page = positions // PAGE_TOKENS
    near = page >= (page - policy.window_pages)[:, None]
    seen = (near | (page < policy.prefix_pages)).expand(kv_heads, -1, -1).clone()
    if policy.selects:
        task = tokens if zones.task_start is None else zones.task_start
        answer = tokens if zones.answer_start is None else zones.answer_start
        dense = (page < policy.dense_pages) | ((positions >= task) & (positions < answer))
        seen[:, dense] = True
        heads = query.view(tokens, kv_heads, -1, query.shape[-1])
        for head in range(kv_heads):
            for rows in _groups(dense.tolist(), task, answer):
                _choose(seen[head], rows, heads[:, head], keys[:, head], policy, stride)
    return seen & causal


def unseen_parts(
    query: torch.Tensor,
    keys: torch.Tensor,
    policy: LayerPolicy,
    zones: Zones,
    *,
    stride: int,
) -> torch.Tensor:
    """Which parts of earlier pages each query sees no key of: bool [kv_heads, n, parts].

    These are what it sees the centroids of.
    """
    seen = visible(query, keys, policy, zones, stride=stride)
    parts = torch.arange(len(keys) // PAGE_TOKENS * PAGE_TOKENS // CENTROID_TOKENS)
    page = torch.arange(len(keys)) // PAGE_TOKENS
    earlier = parts * CENTROID_TOKENS // PAGE_TOKENS < page[:, None]
    return earlier & ~seen[..., parts * CENTROID_TOKENS]


def unseen_pages(seen: torch.Tensor) -> torch.Tensor:
    """The keys of earlier pages that a query does not see: shaped as ``seen``, [.., n, n]."""
    page = torch.arange(seen.shape[-1]) // PAGE_TOKENS
    return ~seen & (page[:, None] > page)


def part_means(numbers: torch.Tensor) -> torch.Tensor:
    """The mean of every part of the whole pages; ``numbers`` is [n, kv_heads, d]."""
    parts = len(numbers) // PAGE_TOKENS * PAGE_TOKENS // CENTROID_TOKENS
    whole = numbers[: parts * CENTROID_TOKENS].float()
    return whole.view(parts, CENTROID_TOKENS, *whole.shape[1:]).mean(1)


def _groups(dense: list[bool], task: int, answer: int) -> list[list[int]]:
    """Positions that choose together: those of one page before the task, single ones behind."""
    groups: dict[tuple[int, int], list[int]] = {}
    for position, is_dense in enumerate(dense):
        if not is_dense:
            alone = position if position >= answer else -1
            groups.setdefault((position // PAGE_TOKENS, alone), []).append(position)
    assert all(position < task or position >= answer for p in groups.values() for position in p)
    return list(groups.values())


def _choose(
    seen: torch.Tensor,
    rows: list[int],
    query: torch.Tensor,
    keys: torch.Tensor,
    policy: LayerPolicy,
    stride: int,
) -> None:
    """Make the selected pages visible to some rows; ``query`` and ``keys`` of one kv head."""
    page = rows[0] // PAGE_TOKENS
    first, last = policy.prefix_pages, max(policy.prefix_pages, page - policy.window_pages)
    if first >= last:
        return
    asked = [row for row in rows if row % stride == stride - 1] or [rows[-1]]
    asked = sorted({*asked, rows[-1]})
    heads = query[asked].float()
    candidates = keys[first * PAGE_TOKENS : last * PAGE_TOKENS].float()
    pages = candidates.view(last - first, PAGE_TOKENS, -1)
    found = SCORES[policy.selector](heads.flatten(0, 1), pages)
    for chosen in found.topk(min(policy.selected_pages, last - first)).indices.tolist():
        begin = (first + chosen) * PAGE_TOKENS
        seen[rows, begin : begin + PAGE_TOKENS] = True
