"""Which pages the blocks of a step select, by what their keys promise or hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.layer_plan import SelectingRows
from longspan.worker.attention.policy import Selector
from longspan.worker.attention.pool import LayerPages
from longspan.worker.attention.selectors.exact import Keys
from longspan.worker.attention.selectors.low_bit import Codes
from longspan.worker.attention.selectors.places import Places, places_of
from longspan.worker.attention.selectors.quest import Bounds

STRIDE = 4
"""Of a page's queries every fourth is asked: neighbours want the same, and scores cost as much
as a sixteenth of full attention for each query that is asked."""

PRODUCTS = 2**26
"""Scores written out at once: a quarter of a GiB."""


class Candidates(Protocol):
    """The pages of one layer that blocks select from, in the order of their sequence."""

    @property
    def products(self) -> int:
        """Scores of one query in one kv head."""
        ...

    def scores(self, query: torch.Tensor, pages: int) -> torch.Tensor:
        """The largest score that any query of a group has with any key of a page, unscaled.

        ``query`` is [kv_heads, groups, rows, d], the heads that share a kv head among the rows.
        The result is [kv_heads, groups, pages], of the first so many pages.
        """
        ...


class Selection:
    """A step's blocks of one selecting policy, ready to be asked in every layer.

    Blocks of one sequence that lie side by side are asked together: each sees the first of the
    pages that the last one sees.
    """

    def __init__(self, blocks: SelectingRows, device: torch.device) -> None:
        self._pages = blocks.pages
        self._groups = [_Group(blocks, group, device) for group in grouped(blocks)]

    def select(self, query: torch.Tensor, layer: LayerPages) -> torch.Tensor:
        """The chosen pages, int64 [blocks, kv_heads, pages]; ``query`` is [tokens, heads, d]."""
        kv_heads = layer.keys.shape[1]
        grouped_query = query.reshape(len(query), kv_heads, -1, query.shape[-1])
        return torch.cat(
            [group.select(grouped_query, layer, self._pages) for group in self._groups]
        )


class _Group:
    """Blocks with nested candidates and equally many queries that are asked."""

    def __init__(self, blocks: SelectingRows, members: Sequence[int], device: torch.device) -> None:
        offsets = blocks.rows.offsets
        asked = [
            asked_rows(int(blocks.starts[block]), int(blocks.rows.lengths[block]))
            + int(offsets[block])
            for block in members
        ]
        longest = max(len(rows) for rows in asked)
        # The last query asked twice changes no maximum.
        padded = [np.pad(rows, (0, longest - len(rows)), mode="edge") for rows in asked]
        self._selector = blocks.selector
        self._asked = torch.from_numpy(np.stack(padded)).to(device)
        counts = [len(blocks.candidates[block]) for block in members]
        self._counts = counts
        self._limits = torch.tensor(counts, device=device)
        table = blocks.candidates[members[int(np.argmax(counts))]].astype(np.int64)
        self._places = places_of(table, device)

    def select(self, query: torch.Tensor, layer: LayerPages, pages: int) -> torch.Tensor:
        """int64 [blocks, kv_heads, pages]; ``query`` is [tokens, kv_heads, group, d]."""
        known = candidates(self._selector, layer, self._places)
        chosen = []
        for first, last in self._tiles(query, known):
            most = max(self._counts[first:last])
            asked = query[self._asked[first:last]].flatten(0, 1)
            rows = asked.view(last - first, -1, *asked.shape[1:]).permute(2, 0, 1, 3, 4)
            rows = rows.flatten(2, 3)
            found = known.scores(rows, most)
            if min(self._counts[first:last]) < most:
                index = torch.arange(most, device=found.device)
                unseen = index >= self._limits[first:last, None]
                found = found.masked_fill(unseen, float("-inf"))
            chosen.append(best(found, pages).transpose(0, 1))
        return self._places.table[torch.cat(chosen)]

    def _tiles(self, query: torch.Tensor, known: Candidates) -> Iterator[tuple[int, int]]:
        """Blocks [first, last) whose products fit."""
        blocks, rows = self._asked.shape
        each = rows * query.shape[1] * query.shape[2] * known.products
        size = max(1, PRODUCTS // each)
        for first in range(0, blocks, size):
            yield first, min(first + size, blocks)


def best(scores: torch.Tensor, pages: int) -> torch.Tensor:
    """The places of the largest scores, [.., pages], the earlier one of equals.

    In 16 bits equals are common. ``topk`` chooses among them by the width of what it is given, and
    then what a document's pages hold would depend on how it arrived.
    """
    return scores.sort(stable=True, descending=True).indices[..., :pages]


def candidates(selector: Selector, layer: LayerPages, places: Places) -> Candidates:
    """What a selector knows of these pages."""
    match selector:
        case Selector.QUEST:
            assert layer.bounds is not None
            return Bounds(layer.bounds[:, places.index])
        case Selector.EXACT:
            return Keys(layer.keys, places)
        case Selector.LOW_BIT:
            assert layer.four_bit is not None
            return Codes(layer.four_bit, places)


def grouped(blocks: SelectingRows) -> Iterator[list[int]]:
    """Neighbours whose candidates begin alike: blocks of one sequence, or of equal prefixes."""
    group: list[int] = []
    longest = 0
    for block in range(len(blocks.starts)):
        if group and not _together(blocks, longest, block):
            yield group
            group = []
        if not group or len(blocks.candidates[block]) > len(blocks.candidates[longest]):
            longest = block
        group.append(block)
    yield group


def _together(blocks: SelectingRows, left: int, right: int) -> bool:
    one, other = blocks.candidates[left], blocks.candidates[right]
    shared = min(len(one), len(other))
    alone = blocks.rows.lengths[[left, right]] == 1
    return bool(alone[0] == alone[1] and np.array_equal(one[:shared], other[:shared]))


def asked_rows(start: int, length: int) -> npt.NDArray[np.int64]:
    """Which of a block's queries are asked, counted from its first: by position, and the last."""
    rows = np.arange(length)
    chosen = rows[(start + rows) % STRIDE == STRIDE - 1]
    return np.union1d(chosen, [length - 1]).astype(np.int64)
