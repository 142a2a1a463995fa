"""How much of the device and of the host a worker takes whose far pages lie on the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longspan.worker.attention.host_split import HostNeeds, HostSplit, split, split_of_frames
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.failures import NoMemory, StartFailure
from longspan.worker.generation.kv_memory import GIB, LEAST_PAGES, pool_bytes, summary_bytes
from longspan.worker.generation.policies import Policies
from longspan.worker.memory import host_free_bytes
from longspan.worker.models.geometry import FAR_SHARE
from longspan.worker.models.probe import LayerShape
from longspan.worker.options import WorkerOptions


def host_needs(policies: Policies, shapes: Sequence[LayerShape], dtype: torch.dtype) -> HostNeeds:
    """What the pages of a model take; its own policy keeps some on the host."""
    served = policies.get("")
    sizes = policies.layout.sizes
    held = zip(sizes, served.retentions, strict=False)
    numbers = sum(shapes[layer].numbers for layer in policies.hosted)
    return HostNeeds(
        frame_bytes=policies.frame_bytes,
        frames=sum(sizes),
        kept=sum(size for size, retention in held if not retention.drops),
        hosted=len({policies.layout.places[layer].frame for layer in policies.hosted}),
        bounds_bytes=summary_bytes(served.policy, shapes, dtype),
        page_bytes=numbers * PAGE_TOKENS * dtype.itemsize,
        chosen=max(served.policy.layer(layer).selected_pages for layer in policies.hosted),
    )


def host_split(
    needs: HostNeeds, device: torch.device, options: WorkerOptions, *, kept_bytes: int
) -> HostSplit:
    """As the options say, or as is free; see ``frame_count``.

    Raises:
        StartFailure: not even a short prompt would fit.
        NoMemory: more was asked for than is free.
    """
    host = host_bytes(options, host_free_bytes())
    if options.kv_tokens is not None:
        frames = options.kv_tokens // PAGE_TOKENS * needs.frames
        found = split_of_frames(needs, frames, host)
    else:
        replicas = options.replicas
        free = pool_bytes(device, options.kv_bytes, replicas=replicas, kept_bytes=kept_bytes)
        found = split(needs, free, host)
    if min(found.frames // needs.frames, found.pages) < LEAST_PAGES:
        raise StartFailure(
            f"{LEAST_PAGES} KV pages are the least: {found.frames} frames of {needs.frame_bytes} "
            f"bytes on {device}, {needs.frames} a page, and {found.pages} pages of "
            f"{needs.page_bytes} bytes on the host are fewer"
        )
    return found


def host_bytes(options: WorkerOptions, free: int | None) -> int:
    """What pages may take of the host, of whose memory ``free`` bytes are free; None: not known.

    The default is divided by the workers of the machine: those that start together all find the
    same memory free, and what is pinned is taken at once.

    Raises:
        NoMemory: more was asked for than is free.
    """
    if options.kv_host_bytes is None:
        return GIB if free is None else int(FAR_SHARE * free) // options.host_replicas
    if free is not None and options.kv_host_bytes > free:
        raise NoMemory(
            f"out of memory: {options.kv_host_bytes / GIB:.2f} GiB for KV pages on the host, "
            f"which has {free / GIB:.2f} GiB free"
        )
    return options.kv_host_bytes
