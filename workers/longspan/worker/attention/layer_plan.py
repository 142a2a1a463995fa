"""From policies to rows: what one kind of layer computes in one step. Pure integers.

A query that does not see the middle of its sequence attends over a shorter one: its block table
has only the pages that it sees, and its position is moved up as far. Causal attention over such a
row is exactly the policy's, in any backend that knows block tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longspan.worker.attention.policy import (
    FULL,
    FULL_MODEL,
    Far,
    LayerPolicy,
    ModelPolicy,
    Selector,
)
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.zones import NO_ZONES, Block, Zones, blocks

Integers = npt.NDArray[np.int64]
Table = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class View:
    """How one sequence is looked at.

    Attributes:
        policy: what each layer of the model sees.
        zones: where its documents end, and its prompt.
    """

    policy: ModelPolicy = FULL_MODEL
    zones: Zones = NO_ZONES


FULL_VIEW = View()


@dataclass(frozen=True, slots=True, eq=False)
class FixedRows:
    """Queries whose pages are known beforehand.

    Attributes:
        queries: int64 [tokens], their places in the packed row; ascending.
        rows: what they see.
    """

    queries: Integers
    rows: AttentionRows


@dataclass(frozen=True, slots=True, eq=False)
class SelectingRows:
    """Queries that see pages of their own choice beside those that are known.

    Every block selects the same number of pages, from more than that, or none; those that a kv
    head leaves are the block's far pages for it.

    Attributes:
        queries: int64 [tokens], their places in the packed row; ascending.
        rows: one a block, of what it sees without selecting.
        starts: int64 [blocks], positions of the blocks' first queries in their sequences.
        candidates: one int32 array a block: the pages to select from.
        before: int64 [blocks], the page before the first of these.
        pages: how many each kv head of a block selects.
        far: how the others are seen.
        selector: how they are chosen.
        whole: the blocks select none and see all: candidates that lie on the host.
    """

    queries: Integers
    rows: AttentionRows
    starts: Integers
    candidates: Sequence[Table]
    before: Integers
    pages: int
    far: Far = Far.NONE
    selector: Selector = Selector.QUEST
    whole: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class LayerPlan:
    """What the layers of one policy compute; every query is in exactly one part."""

    fixed: FixedRows | None
    selecting: Sequence[SelectingRows]


class _Alike(NamedTuple):
    """What blocks that are taken together have in common; see ``SelectingRows``."""

    pages: int
    far: Far
    selector: Selector
    whole: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """One row: queries at packed places [first, first + length), positions moved to ``start``."""

    first: int
    length: int
    start: int
    table: Table


def layer_plan(
    rows: AttentionRows, policies: Sequence[LayerPolicy], zones: Sequence[Zones]
) -> LayerPlan:
    """The plan of a layer where chunk i follows ``policies[i]``."""
    fixed: list[_Row] = []
    selecting: dict[_Alike, list[tuple[_Row, int, Table]]] = {}
    for index, policy in enumerate(policies):
        start, end = int(rows.starts[index]), int(rows.ends[index])
        first, table = int(rows.offsets[index]) - start, rows.block_tables[index]
        for block in _blocks(start, end, zones[index], policy):
            row = _row(block, first, table, policy)
            candidates = policy.candidates(block.start // PAGE_TOKENS)
            if (block.dense and not policy.on_host) or not candidates:
                fixed.append(row)
            else:
                between = rows.numbers[index] if policy.numbered and rows.numbers else table
                # The page before them too: the prefix has one at least.
                chosen = (row, block.start, between[candidates.start - 1 : candidates.stop])
                pages = 0 if block.dense else policy.selected_pages
                alike = _Alike(pages, policy.far, policy.selector, block.dense)
                selecting.setdefault(alike, []).append(chosen)
    return LayerPlan(
        fixed=FixedRows(_queries(fixed), _rows(fixed)) if fixed else None,
        selecting=[_selecting(alike, chosen) for alike, chosen in selecting.items()],
    )


def _blocks(start: int, end: int, zones: Zones, policy: LayerPolicy) -> Iterator[Block]:
    if policy.selects:
        yield from _joined(blocks(start, end, zones, policy))
    elif policy.drops:
        for at in range(start - start % PAGE_TOKENS, end, PAGE_TOKENS):
            yield Block(max(at, start), min(at + PAGE_TOKENS, end), False)
    else:
        yield Block(start, end, True)


def _joined(parts: Iterator[Block]) -> Iterator[Block]:
    """Dense neighbours as one block."""
    held: Block | None = None
    for part in parts:
        if held is not None and held.dense and part.dense:
            held = Block(held.start, part.end, True)
            continue
        if held is not None:
            yield held
        held = part
    if held is not None:
        yield held


def _row(block: Block, first: int, table: Table, policy: LayerPolicy) -> _Row:
    length = block.end - block.start
    last_page = (block.end - 1) // PAGE_TOKENS + 1
    if block.dense and not policy.on_host:
        return _Row(first + block.start, length, block.start, table[:last_page])
    page = block.start // PAGE_TOKENS
    window = policy.first_window_page(page)
    prefix = min(policy.prefix_pages, window)
    seen = np.concatenate((table[:prefix], table[window:last_page]))
    hidden = (window - prefix) * PAGE_TOKENS
    return _Row(first + block.start, length, block.start - hidden, seen)


def _selecting(alike: _Alike, chosen: Sequence[tuple[_Row, int, Table]]) -> SelectingRows:
    rows = [row for row, _, _ in chosen]
    return SelectingRows(
        queries=_queries(rows),
        rows=_rows(rows),
        starts=np.array([start for _, start, _ in chosen], np.int64),
        candidates=[pages[1:] for _, _, pages in chosen],
        before=np.array([pages[0] for _, _, pages in chosen], np.int64),
        pages=alike.pages,
        far=alike.far,
        selector=alike.selector,
        whole=alike.whole,
    )


def _rows(rows: Sequence[_Row]) -> AttentionRows:
    return AttentionRows(
        np.array([row.start for row in rows], np.int64),
        np.array([row.length for row in rows], np.int64),
        [row.table for row in rows],
    )


def _queries(rows: Sequence[_Row]) -> Integers:
    return np.concatenate([np.arange(row.first, row.first + row.length) for row in rows])


def is_full(policies: Sequence[LayerPolicy]) -> bool:
    """True where no chunk needs a plan of its own."""
    return all(policy == FULL for policy in policies)
