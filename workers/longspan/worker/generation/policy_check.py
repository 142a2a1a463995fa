"""Proves at the start that attention policies see on this device what they are defined to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from longspan.worker.attention.base import Attended, Backend
from longspan.worker.attention.eight_bit import EightBitPages
from longspan.worker.attention.host_backend import HostBackend
from longspan.worker.attention.host_pages import HostPages
from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.linear.page_sums import PageSums
from longspan.worker.attention.naive_policy import attend_naively
from longspan.worker.attention.policy import Far, Kind, LayerPolicy, ModelPolicy, Selector
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.selection import STRIDE
from longspan.worker.attention.step_attention import StepAttention
from longspan.worker.attention.zones import Zones
from longspan.worker.failures import StartFailure
from longspan.worker.generation.self_check import TOLERANCE

PAGES = 6
TOKENS = 5 * PAGE_TOKENS + 1
START = 4 * PAGE_TOKENS
"""A page of a document that selects, and one token of an answer."""

ZONES = Zones(TOKENS - 1, TOKENS - 1)
PLAIN = 3
"""The page to select is this much larger than the others, so that rounding changes no choice."""

MOST_GROUP = 4
"""Heads that share a kv head: all scores of these are written out."""

HOST_ZONES = Zones(TOKENS - 9, TOKENS - 1)
"""Where all far pages may lie on the host, a task that sees them is looked at too."""

CHECKED = (
    LayerPolicy(kind=Kind.WINDOW, prefix_pages=1, window_pages=1),
    LayerPolicy(kind=Kind.HYBRID, prefix_pages=1, selected_pages=1),
    LayerPolicy(kind=Kind.HIERARCHICAL, prefix_pages=1, selected_pages=1, far=Far.CENTROID),
    LayerPolicy(kind=Kind.HIERARCHICAL, prefix_pages=1, selected_pages=1, far=Far.LINEAR),
    LayerPolicy(kind=Kind.HYBRID, prefix_pages=1, selected_pages=1, selector=Selector.LOW_BIT),
)
HOST_CHECKED = (LayerPolicy(kind=Kind.HYBRID, prefix_pages=1, selected_pages=1, on_host=True),)


@torch.inference_mode()
def policy_check(backend: Backend, layer: LayerPages, heads: int) -> None:
    """Compare each kind of layer with its definition, over random numbers in the first pages.

    A pool of fewer than ``PAGES`` pages is not checked: nothing in it leaves anything out.

    Args:
        heads: of the queries.

    Raises:
        StartFailure: a policy would see something else here.
    """
    if _pages(layer) < PAGES:
        return
    if isinstance(layer, HostPages):
        _check(HostBackend(backend, layer.slots.slots), layer, heads, HOST_CHECKED, HOST_ZONES)
    else:
        _check(backend, layer, heads, CHECKED, ZONES)


def unlike(layers: Sequence[LayerPages]) -> Sequence[int]:
    """A layer of each kind that looks at other tensors; 8 bits are no policy's to look at."""
    found = {
        (type(one), one.bounds is None, one.four_bit is None, one.page_sums is None): index
        for index, one in enumerate(layers)
        if not isinstance(one, EightBitPages)
    }
    return list(found.values())


def _pages(layer: LayerPages) -> int:
    """Pages that a pool has room for, whole."""
    if isinstance(layer, HostPages):
        return min(layer.slots.first, len(layer.host_keys))
    return len(layer.keys)


def _check(
    backend: Backend,
    layer: LayerPages,
    heads: int,
    policies: Sequence[LayerPolicy],
    zones: Zones,
) -> None:
    layer = replace(layer, frame=0)  # its pages alone are looked at
    kv_heads = layer.keys.shape[1]
    layer = _of_few_heads(layer, heads)
    query, keys, values = _numbers(layer, kv_heads * min(heads // kv_heads, MOST_GROUP))
    scale = query.shape[-1] ** -0.5 if layer.page_sums is None else layer.page_sums.scale
    table = np.arange(PAGES, dtype=np.int32)[::-1].copy()
    whole = AttentionRows(np.array([0]), np.array([TOKENS]), [table], [table])
    layer.write(whole.slots(layer.keys.device), keys.transpose(0, 1), values.transpose(0, 1))
    rows = AttentionRows(np.array([START]), np.array([TOKENS - START]), [table], [table])
    for policy in policies:
        if policy.selects and layer.bounds is None:
            continue  # this worker serves none that do
        if policy.far is Far.LINEAR and layer.page_sums is None:
            continue  # nor that has feature maps
        if policy.selector is Selector.LOW_BIT and layer.four_bit is None:
            continue
        view = View(ModelPolicy(policy.kind, (policy,)), zones)
        step = StepAttention([backend], [rows], [view], layer.keys.device)
        found = step.attend(0, query[START:], layer, scale=scale, window=None)
        _compare(policy, zones, found, query, keys, values, layer.page_sums, scale)


def _of_few_heads(layer: LayerPages, heads: int) -> LayerPages:
    """The layer with the feature maps of those heads whose scores are written out."""
    if layer.page_sums is None:
        return layer
    kv_heads, sums = range(layer.keys.shape[1]), layer.page_sums
    group = heads // len(kv_heads)
    asked = [at for at in range(heads) if at % group < MOST_GROUP]
    return replace(
        layer, page_sums=replace(sums, maps=sums.maps.part(asked, kv_heads, sums.sums.device))
    )


def _numbers(layer: LayerPages, heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query [tokens, heads, d], keys and values [tokens, kv_heads, ..], as stored."""
    numbers = torch.Generator().manual_seed(0)
    kv_heads, d = layer.keys.shape[1], layer.keys.shape[3]
    query, keys, values = (
        torch.randn(TOKENS, count, width, generator=numbers).to(layer.keys)
        for count, width in ((heads, d), (kv_heads, d), (kv_heads, layer.values.shape[3]))
    )
    keys[2 * PAGE_TOKENS : 3 * PAGE_TOKENS] *= PLAIN
    return query, keys, keys[..., : values.shape[-1]] if layer.latent else values


def _compare(
    policy: LayerPolicy,
    zones: Zones,
    found: Attended,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    sums: PageSums | None,
    scale: float,
) -> None:
    """The first and the last kv head: the definition writes all scores out."""
    group = query.shape[1] // keys.shape[1]
    for head in {0, keys.shape[1] - 1}:
        heads, own = slice(head * group, (head + 1) * group), slice(head, head + 1)
        ours = range(heads.start, heads.stop)
        expected = attend_naively(
            query[:, heads].float().cpu(),
            keys[:, own].float().cpu(),
            values[:, own].float().cpu(),
            policy,
            zones,
            scale=scale,
            stride=STRIDE,
            maps=None if sums is None else sums.maps.part(ours, [head], torch.device("cpu")),
        ).out[START:]
        actual = found.out[:, heads].float().cpu()
        difference = float((actual - expected).abs().max() / expected.abs().max())
        if not difference <= TOLERANCE[query.dtype]:
            raise StartFailure(
                f"self-check failed: {policy.kind} attention differs by {difference:.2g} of the "
                "largest number from its definition"
            )
