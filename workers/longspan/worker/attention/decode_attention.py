"""The attention of decode rows under one policy, planned on the device: fit for a CUDA graph.

``layer_plan`` and ``selection`` plan any step on the host. Here one query stands for each sequence,
so a plan is a few integers, and no shape depends on their values: where a row has fewer pages than
there are places, the places hold pages that are masked, or lie behind its last key.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.folded import FoldedBackend, FoldedPlan
from longspan.worker.attention.policy import FULL, Far, LayerPolicy, ModelPolicy, Selector
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.selection import best
from longspan.worker.attention.selectors import quest

LOOKED_AT = 2**28
"""Bytes of bounds that are looked at at once: a graph keeps the memory for them."""


@dataclass(frozen=True, slots=True, eq=False)
class _Near:
    """What one kind of layer sees.

    Attributes:
        plan: the first pages and the last ones, behind room for those that are selected.
        unseen: bool [rows, blocks], pages that are not to be selected; None where none is.
    """

    plan: FoldedPlan
    unseen: torch.Tensor | None


class DecodeAttention:
    """Attention of one query a sequence; a ``LayerAttention``.

    Every row follows ``policy`` beyond its dense pages, with more candidates than it selects: see
    ``can_decode`` and ``selects_from``.

    Args:
        backend: whose kernel reads block tables on the device.
        policy: of all rows.
        block_tables: int32 [rows, blocks].
        keys: int32 [rows], the keys before and at each row's query.
    """

    def __init__(
        self,
        backend: FoldedBackend,
        policy: ModelPolicy,
        block_tables: torch.Tensor,
        keys: torch.Tensor,
    ) -> None:
        self._backend = backend
        self._policy = policy
        self._tables = block_tables
        self._keys = keys
        self._whole: FoldedPlan | None = None
        self._near: dict[LayerPolicy, _Near] = {}

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
        policy = self._policy.layer(index)
        if window is not None or policy == FULL:
            if self._whole is None:
                self._whole = self._backend.decode_plan(self._tables, self._keys)
            return self._backend.attend(query, layer, self._whole, scale=scale, window=window)
        if policy not in self._near:
            self._near[policy] = self._look(policy)
        near = self._near[policy]
        if near.unseen is None:
            return self._backend.attend(query, layer, near.plan, scale=scale)
        selected = self._select(query, layer, near.unseen, policy.selected_pages)
        return self._backend.attend_selected(query, layer, near.plan, selected, scale=scale)

    def _look(self, policy: LayerPolicy) -> _Near:
        rows, blocks = self._tables.shape
        last = (self._keys - 1) // PAGE_TOKENS
        window = (last - policy.window_pages).clamp(min=policy.prefix_pages)[:, None]
        hidden = window - policy.prefix_pages
        place = torch.arange(policy.prefix_pages + policy.window_pages + 1, device=last.device)
        index = torch.where(place < policy.prefix_pages, place, place + hidden)
        # Places behind the last page are behind the last key too.
        pages = self._tables.gather(1, index.clamp(max=blocks - 1))
        room = pages.new_zeros(rows, policy.selected_pages)
        keys = self._keys + (policy.selected_pages - hidden[:, 0]) * PAGE_TOKENS
        plan = self._backend.decode_plan(torch.cat((room, pages), 1), keys.int())
        if not policy.selects:
            return _Near(plan, None)
        page = torch.arange(blocks, device=last.device)
        return _Near(plan, (page < policy.prefix_pages) | (page >= window))

    def _select(
        self, query: torch.Tensor, layer: LayerPages, unseen: torch.Tensor, pages: int
    ) -> torch.Tensor:
        """The chosen pages, int64 [rows, kv_heads, pages]."""
        assert layer.bounds is not None
        kv_heads, blocks = layer.keys.shape[1], self._tables.shape[1]
        asked = query.reshape(len(query), kv_heads, -1, query.shape[-1]).transpose(0, 1)
        size = max(1, LOOKED_AT // (layer.bounds[:, 0].nbytes * blocks))
        tables, masks = torch.split(self._tables, size), torch.split(unseen, size)
        parts = zip(torch.split(asked, size, 1), tables, masks, strict=True)
        return torch.cat([_chosen(layer.bounds, *part, pages) for part in parts])


def _chosen(
    bounds: torch.Tensor,
    query: torch.Tensor,
    tables: torch.Tensor,
    unseen: torch.Tensor,
    pages: int,
) -> torch.Tensor:
    """The same of some rows; ``query`` is [kv_heads, rows, group, d]."""
    kv_heads, (rows, blocks) = len(bounds), tables.shape
    # Every row has pages of its own, as every kv head has.
    known = bounds[:, tables].flatten(0, 1)
    scores = quest.scores(query.flatten(0, 1)[:, None], known)
    found = scores.view(kv_heads, rows, blocks).masked_fill(unseen, float("-inf"))
    places = best(found, pages)
    return tables.expand(kv_heads, -1, -1).gather(2, places).transpose(0, 1).long()


def can_decode(policy: ModelPolicy) -> bool:
    """True for policies whose layers all look as ``DecodeAttention`` can."""
    return all(
        layer.far is Far.NONE and layer.selector is Selector.QUEST and not layer.on_host
        for layer in policy.layers
    )


def selects_from(policy: ModelPolicy) -> int:
    """The first position from which on no selecting layer of ``policy`` sees everything."""
    return max((_selects_from(layer) for layer in policy.layers if layer.selects), default=0)


def sees_all_before(policy: ModelPolicy) -> int:
    """The first position from which on some layer of ``policy``, not a full one, does not."""
    if any(layer.drops for layer in policy.layers):
        return 0
    return min((_selects_from(layer) for layer in policy.layers if layer.selects), default=0)


def _selects_from(layer: LayerPolicy) -> int:
    few = layer.prefix_pages + layer.selected_pages + layer.window_pages
    return max(layer.dense_pages, few + 1) * PAGE_TOKENS
