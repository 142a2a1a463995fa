"""The host's part of the pool: full pages of some layers, and their slots on the device."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from longspan.worker.attention.host_pages import HostPages
from longspan.worker.attention.host_slots import HostSlots
from longspan.worker.attention.host_split import HostSplit
from longspan.worker.attention.pool import LayerPages
from longspan.worker.failures import NoMemory
from longspan.worker.models.probe import LayerShape

PORTABLE = 1
"""To CUDA: for every device of this process."""


def put_on_host(
    layers: Sequence[LayerPages],
    shapes: Sequence[LayerShape],
    hosted: Collection[int],
    room: HostSplit,
) -> list[LayerPages]:
    """The pool where these layers' far pages lie on the host.

    Layers of different frames share tensors: each frame's have their slots behind those of the
    frame before, at the end of the tensors.

    Raises:
        NoMemory: the host's memory does not do.
    """
    frames = sorted({layers[index].frame for index in hosted})
    return [
        _on_host(
            layer,
            shape,
            room,
            len(layer.keys) - (len(frames) - frames.index(layer.frame)) * room.slots,
        )
        if index in hosted
        else layer
        for index, (layer, shape) in enumerate(zip(layers, shapes, strict=True))
    ]


def _on_host(layer: LayerPages, shape: LayerShape, room: HostSplit, first: int) -> HostPages:
    keys, values = (_host_memory(room.pages, frames) for frames in (layer.keys, layer.values))
    return HostPages(
        layer.keys,
        layer.values,
        shape.bounds(room.pages, layer.keys.dtype, layer.keys.device),
        frame=layer.frame,
        host_keys=keys,
        host_values=values,
        slots=HostSlots(first, room.slots, shape.kv_heads, room.pages),
    )


def _host_memory(pages: int, frames: torch.Tensor) -> torch.Tensor:
    """Room for so many pages like these, pinned where they lie on a GPU.

    Memory of torch's own pinned allocator would be rounded up to a power of two.
    """
    try:
        memory = torch.empty(pages, *frames.shape[1:], dtype=frames.dtype)
        if frames.device.type == "cuda":
            _pin(memory)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise NoMemory(f"out of memory for {pages} KV pages on the host: {reason}") from error
    return memory


def _pin(memory: torch.Tensor) -> None:
    """Lock memory in its place, so that the GPU copies it by itself; it is never given back.

    Raises:
        RuntimeError: the system refuses.
    """
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    error = int(runtime.cudaHostRegister(memory.data_ptr(), memory.nbytes, PORTABLE))
    if error:
        raise RuntimeError(f"{memory.nbytes} bytes cannot be pinned: CUDA error {error}")
