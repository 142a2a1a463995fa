"""Makes a worker's pool of KV pages, as large as its options and the machine allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from longspan.worker.attention.pool import LayerPages
from longspan.worker.generation.attention_maps import ServedMaps
from longspan.worker.generation.host_memory import host_needs, host_split
from longspan.worker.generation.host_pool import put_on_host
from longspan.worker.generation.kv_memory import frame_count, summary_bytes
from longspan.worker.generation.kv_pool import make_pool
from longspan.worker.generation.policies import Policies
from longspan.worker.models.geometry import SUMMARIES
from longspan.worker.models.probe import LayerShape
from longspan.worker.options import WorkerOptions


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The tensors of all pages.

    Attributes:
        layers: one a layer.
        frames: that are handed out.
        numbers: that pages may have; None: as many as lie in frames at once.
        host_page_bytes: of a page on the host; 0 where none lies there.
    """

    layers: list[LayerPages]
    frames: int
    numbers: int | None
    host_page_bytes: int = 0


def open_pool(
    policies: Policies,
    shapes: Sequence[LayerShape],
    dtype: torch.dtype,
    device: torch.device,
    options: WorkerOptions,
    maps: ServedMaps | None = None,
    *,
    kept_bytes: int,
) -> Pool:
    """The pool of a worker.

    Args:
        maps: for layers with linear far states; None where no policy has such.
        kept_bytes: of the device's free memory, what the largest step needs.

    Raises:
        StartFailure: not even a short prompt would fit.
        NoMemory: it does not fit.
    """
    if policies.hosted:
        return _with_host(policies, shapes, dtype, device, options, kept_bytes)
    page_frames, chosen = sum(policies.sizes), policies.get("").policy
    summary = summary_bytes(chosen, shapes, dtype) if chosen.forgets else 0
    frames = frame_count(
        policies.frame_bytes + SUMMARIES * summary // page_frames,
        policies.layout.sizes,
        device,
        options.kv_bytes,
        kv_tokens=options.kv_tokens,
        replicas=options.replicas,
        kept_bytes=kept_bytes,
    )
    forgetting = [index for index in range(len(shapes)) if chosen.layer(index).forgets]
    numbers = SUMMARIES * (frames // page_frames) if forgetting else None
    # One page more than is handed out: rows that only pad a decode batch use it.
    layers = make_pool(
        shapes,
        policies.layout,
        frames + page_frames,
        dtype,
        device,
        bounds=policies.selects,
        summaries={layer: numbers for layer in forgetting if numbers},
        maps=None if maps is None else maps.of(policies.linear, device),
    )
    return Pool(layers, frames, numbers)


def _with_host(
    policies: Policies,
    shapes: Sequence[LayerShape],
    dtype: torch.dtype,
    device: torch.device,
    options: WorkerOptions,
    kept_bytes: int,
) -> Pool:
    needs = host_needs(policies, shapes, dtype)
    room = host_split(needs, device, options, kept_bytes=kept_bytes)
    frames = room.frames + needs.frames + needs.hosted * room.slots
    layers = make_pool(shapes, policies.layout, frames, dtype, device, bounds=policies.selects)
    hosted = put_on_host(layers, shapes, policies.hosted, room)
    return Pool(hosted, room.frames, room.pages, needs.page_bytes)
