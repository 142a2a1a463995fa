"""How many frames of KV pages a worker keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longspan.worker.attention.policy import CENTROID_TOKENS, ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.selectors.quest import BLOCK_KEYS
from longspan.worker.devices import free_bytes
from longspan.worker.failures import NoMemory, StartFailure
from longspan.worker.models.geometry import GPU_SHARE, HOST_SHARE
from longspan.worker.models.probe import LayerShape

GIB = 1 << 30
LEAST_PAGES = 2


def summary_bytes(policy: ModelPolicy, shapes: Sequence[LayerShape], dtype: torch.dtype) -> int:
    """Bytes on the device that stand for one page over all layers: the centroids that the policy
    looks at, and what pages are chosen by whose frames are given up."""
    centroids, blocks = PAGE_TOKENS // CENTROID_TOKENS, PAGE_TOKENS // BLOCK_KEYS
    rows = 0
    for index, shape in enumerate(shapes):
        layer = policy.layer(index)
        hosted = layer.on_host and shape.window is None
        rows += shape.numbers * (centroids * layer.has_centroids + blocks * hosted)
    return rows * dtype.itemsize


def frame_count(
    frame_bytes: int,
    sizes: Sequence[int],
    device: torch.device,
    kv_bytes: int | None,
    *,
    kv_tokens: int | None = None,
    replicas: int = 1,
    kept_bytes: int = 0,
) -> int:
    """Frames for ``kv_tokens``, or that fit into ``kv_bytes``, or into what is free.

    Args:
        frame_bytes: of one frame.
        sizes: frames that a page takes for each group of layers.
        device: where they lie.
        kv_bytes: all that pages may take; None is a share of the free memory.
        kv_tokens: all that pages must hold; None follows from the bytes.
        replicas: decoders that share the free memory.
        kept_bytes: of a GPU's free memory, what the largest step needs.

    Raises:
        StartFailure: not even a short prompt would fit.
        NoMemory: more was asked for than is free.
    """
    page_bytes = frame_bytes * sum(sizes)
    if kv_tokens is not None:
        kv_bytes = kv_tokens // PAGE_TOKENS * page_bytes
    kv_bytes = pool_bytes(device, kv_bytes, replicas=replicas, kept_bytes=kept_bytes)
    frames = kv_bytes // frame_bytes
    if frames // sum(sizes) < LEAST_PAGES:
        raise StartFailure(
            f"{kv_bytes} bytes hold {kv_bytes // page_bytes} KV pages; "
            f"a page of {PAGE_TOKENS} tokens needs {page_bytes} bytes, "
            f"and {LEAST_PAGES} are the least"
        )
    return frames


def pool_bytes(
    device: torch.device, kv_bytes: int | None, *, replicas: int, kept_bytes: int
) -> int:
    """What all pages may take of a device; see ``frame_count``.

    Raises:
        NoMemory: more was asked for than is free.
    """
    free = free_bytes(device)
    if kv_bytes is None:
        share = HOST_SHARE if device.type == "cpu" else GPU_SHARE
        kv_bytes = max(int(share * free) - kept_bytes, 0) // replicas if free is not None else GIB
    elif free is not None and kv_bytes > free:
        raise NoMemory(
            f"out of memory: {kv_bytes / GIB:.2f} GiB for KV pages, "
            f"{device} has {free / GIB:.2f} GiB free"
        )
    return kv_bytes
