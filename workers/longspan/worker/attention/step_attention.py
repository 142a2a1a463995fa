"""The attention of one step: every sequence under its own policy, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from longspan.worker.attention.base import Attended, Backend
from longspan.worker.attention.far_centroids import FarCentroids
from longspan.worker.attention.far_linear import FarLinear
from longspan.worker.attention.far_whole import FarWhole
from longspan.worker.attention.layer_plan import LayerPlan, SelectingRows, View, is_full, layer_plan
from longspan.worker.attention.merge import merge
from longspan.worker.attention.policy import Far, LayerPolicy
from longspan.worker.attention.pool import LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.selection import Selection

_FarAttention = FarCentroids | FarLinear | FarWhole


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Queries that one call of the backend takes.

    Attributes:
        queries: int64 [tokens], their places in the packed row; None: all of it.
        plan: the backend's.
        selection: asked in every layer; None where the pages are known beforehand.
        far: attention over what the queries do not select; None where it is not seen.
    """

    queries: torch.Tensor | None
    plan: Any
    selection: Selection | None
    far: _FarAttention | None = None


class LayerAttention(Protocol):
    """What a layer of the model asks for."""

    def attend(
        self,
        index: int,
        query: torch.Tensor,
        layer: LayerPages,
        *,
        scale: float,
        window: int | None,
    ) -> Attended:
        """Attend from ``query`` [tokens, heads, d] in the model's layer ``index``.

        A layer with a window of its own was trained with it, and needs no policy.
        """
        ...


class FullAttention:
    """A step whose sequences see everything in every layer.

    Args:
        backends: one for each frame of a page.
        plans: theirs.
    """

    def __init__(self, backends: Sequence[Backend], plans: Sequence[Any]) -> None:
        self._calls = tuple(zip(backends, plans, strict=True))

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
        backend, plan = self._calls[layer.frame]
        return backend.attend(query, layer, plan, scale=scale, window=window)


def step_attention(
    backends: Sequence[Backend],
    rows: Sequence[AttentionRows],
    views: Sequence[View],
    device: torch.device,
) -> LayerAttention:
    """The attention of a step.

    Args:
        backends: one for each frame of a page.
        rows: likewise; they differ in their block tables alone.
        views: how each chunk is looked at.
        device: where it is computed.
    """
    if all(view.policy.full for view in views):
        plans = [b.plan(r, device) for b, r in zip(backends, rows, strict=True)]
        return FullAttention(backends, plans)
    return StepAttention(backends, rows, views, device)


class StepAttention:
    """Plans each combination of policies once, however many layers have it.

    Args:
        backends, rows: one for each frame of a page; see ``step_attention``.
        views: how each chunk is looked at, in the order of the rows.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        rows: Sequence[AttentionRows],
        views: Sequence[View],
        device: torch.device,
    ) -> None:
        self._frames = [
            _Frame(backend, these, views, device)
            for backend, these in zip(backends, rows, strict=True)
        ]
        self._views = views

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
        policies = tuple(view.policy.layer(index) for view in self._views)
        frame = self._frames[layer.frame]
        if window is not None or is_full(policies):
            return frame.attend_full(query, layer, scale, window)
        return frame.attend(policies, query, layer, scale)


class _Frame:
    """The layers that lie in one frame of a page, and so have one block table."""

    def __init__(
        self, backend: Backend, rows: AttentionRows, views: Sequence[View], device: torch.device
    ) -> None:
        self._backend = backend
        self._rows = rows
        self._views = views
        self._device = device
        self._parts: dict[tuple[LayerPolicy, ...], list[_Part]] = {}
        self._whole: Any = None

    def attend_full(
        self, query: torch.Tensor, layer: LayerPages, scale: float, window: int | None
    ) -> Attended:
        if self._whole is None:
            self._whole = self._backend.plan(self._rows, self._device)
        return self._backend.attend(query, layer, self._whole, scale=scale, window=window)

    def attend(
        self,
        policies: tuple[LayerPolicy, ...],
        query: torch.Tensor,
        layer: LayerPages,
        scale: float,
    ) -> Attended:
        parts = self._parts.get(policies)
        if parts is None:
            parts = self._parts[policies] = self._plan(policies)
        if len(parts) == 1:
            return self._attend_part(query, layer, parts[0], scale)
        out = query.new_empty(*query.shape[:2], layer.values.shape[-1])
        lse = query.new_empty(query.shape[:2], dtype=torch.float32)
        for part in parts:
            assert part.queries is not None
            done = self._attend_part(query[part.queries], layer, part, scale)
            out[part.queries], lse[part.queries] = done
        return Attended(out, lse)

    def _attend_part(
        self, query: torch.Tensor, layer: LayerPages, part: _Part, scale: float
    ) -> Attended:
        if part.selection is None:
            near = self._backend.attend(query, layer, part.plan, scale=scale)
            selected = None
        else:
            selected = part.selection.select(query, layer)
            near = self._backend.attend_selected(query, layer, part.plan, selected, scale=scale)
        if part.far is None:
            return near
        return merge([near, part.far.attend(query, layer, selected, scale=scale)])

    def _plan(self, policies: tuple[LayerPolicy, ...]) -> list[_Part]:
        zones = [view.zones for view in self._views]
        planned: LayerPlan = layer_plan(self._rows, policies, zones)
        parts = []
        if planned.fixed is not None:
            plan = self._backend.plan(planned.fixed.rows, self._device)
            parts.append(_Part(self._places(planned.fixed.queries), plan, None))
        return parts + [self._selecting(blocks) for blocks in planned.selecting]

    def _selecting(self, blocks: SelectingRows) -> _Part:
        places, far = self._places(blocks.queries), _far_attention(blocks, self._device)
        if blocks.pages == 0:
            return _Part(places, self._backend.plan(blocks.rows, self._device), None, far)
        plan = self._backend.plan_selected(blocks.rows, blocks.pages, self._device)
        return _Part(places, plan, Selection(blocks, self._device), far)

    def _places(self, queries: Any) -> torch.Tensor:
        return torch.from_numpy(queries).to(self._device)


def _far_attention(blocks: SelectingRows, device: torch.device) -> _FarAttention | None:
    if blocks.whole:
        return FarWhole(blocks)
    match blocks.far:
        case Far.NONE:
            return None
        case Far.CENTROID:
            return FarCentroids(blocks, device)
        case Far.LINEAR:
            return FarLinear(blocks, device)
