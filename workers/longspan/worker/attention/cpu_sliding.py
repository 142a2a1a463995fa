"""Prefill behind a sliding window of pages on a CPU: neighbouring pages in one call.

Each page of queries sees the pages before it up to the window's length, and the first ones. Their
windows overlap: the keys are copied once for all of them, and every window is a view of the copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.cpu_kernel import flash
from longspan.worker.attention.merge import merge
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows

MOST_BLOCKS = 16
"""Pages of queries in one call: bounds the memory of a step."""

Table = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class SlidingBlocks:
    """Neighbouring rows of a whole page each, whose windows slide by a page.

    Attributes:
        first, last: the rows [first, last).
        prefix: pages that all of them see first.
        pages: those that come then, from the first row's to the last row's own.
        seen: how many of these each row sees, its own included.
    """

    first: int
    last: int
    prefix: Table
    pages: Table
    seen: int


def sliding_blocks(rows: AttentionRows) -> Iterator[SlidingBlocks]:
    """All runs of two rows and more. Pure integers."""
    first = 0
    while first < len(rows.starts):
        last = first + 1
        prefix: int | None = None
        while last < len(rows.starts) and last - first < MOST_BLOCKS:
            found = _slides(rows, last - 1)
            if found is None or prefix not in (None, found):
                break
            prefix, last = found, last + 1
        if prefix is not None:
            tables = rows.block_tables[first:last]
            pages = np.concatenate([tables[0][prefix:], *(table[-1:] for table in tables[1:])])
            yield SlidingBlocks(first, last, tables[0][:prefix], pages, len(tables[0]) - prefix)
        first = last


def attend_sliding(
    query: torch.Tensor, layer: LayerPages, blocks: SlidingBlocks, *, scale: float
) -> Attended:
    """Attend from ``query`` [tokens, heads, d] of these rows; see ``Backend.attend``."""
    count = blocks.last - blocks.first
    tiles = query.view(count, PAGE_TOKENS, *query.shape[1:]).transpose(1, 2)
    keys, values = (_windows(copy, blocks.seen) for copy in _copies(layer, blocks.pages))
    own = -PAGE_TOKENS
    parts = [
        flash(tiles, keys[:, :, own:], values[:, :, own:], scale=scale, causal=True),
        flash(tiles, keys[:, :, :own], values[:, :, :own], scale=scale),
    ]
    if len(blocks.prefix):
        keys, values = (copy.expand(count, *copy.shape) for copy in _copies(layer, blocks.prefix))
        parts.append(flash(tiles, keys, values, scale=scale))
    whole = merge([Attended(out[..., : layer.values.shape[-1]], lse) for out, lse in parts])
    return Attended(*(each.transpose(1, 2).flatten(0, 1) for each in whole))


def _slides(rows: AttentionRows, row: int) -> int | None:
    """Pages that a row and the next one begin with, if the windows behind differ by one page."""
    one, other = rows.block_tables[row], rows.block_tables[row + 1]
    for index in (row, row + 1):
        aligned = rows.starts[index] == (len(rows.block_tables[index]) - 1) * PAGE_TOKENS
        if rows.lengths[index] != PAGE_TOKENS or not aligned:
            return None
    if len(one) != len(other) or np.array_equal(one, other):
        return None
    prefix = int(np.argmax(one != other))
    # A window of its own page alone has no past.
    slides = np.array_equal(one[prefix + 1 :], other[prefix:-1]) and len(one) - prefix > 1
    return prefix if slides else None


def _copies(layer: LayerPages, table: Table) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of some pages side by side, [kv_heads, tokens, d]."""
    places = torch.from_numpy(table).long()
    keys = layer.keys[places].transpose(0, 1).flatten(1, 2)
    return keys, keys if layer.latent else layer.values[places].transpose(0, 1).flatten(1, 2)


def _windows(copy: torch.Tensor, pages: int) -> torch.Tensor:
    """Each row's window, [rows, kv_heads, tokens, d]; a view."""
    return copy.unfold(1, pages * PAGE_TOKENS, PAGE_TOKENS).permute(1, 0, 3, 2)
