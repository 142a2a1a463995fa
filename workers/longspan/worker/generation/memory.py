"""The pages of all sequences: found, held, completed, evicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longspan.worker.attention.retention import UNBOUNDED, Retention, longest
from longspan.worker.generation.sequence import HOLE, Sequence
from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.pages import PageId, PageTable

Knows = Callable[[PageKey, int], bool]
"""True where a page's part of a group of layers can be had."""


def knows_nothing(key: PageKey, group: int) -> bool:
    """What is known where nothing is kept."""
    return False


@dataclass(frozen=True, slots=True, eq=False)
class BlockTables:
    """Where the first pages of a sequence lie.

    Attributes:
        frames: int32 [pages], one for each of a page's frames.
        numbers: int32 [pages], where something is found by a page's number; else None.
    """

    frames: tuple[npt.NDArray[np.int32], ...]
    numbers: npt.NDArray[np.int32] | None


class Memory:
    """Moves pages between a table and its sequences' block tables."""

    def __init__(self, table: PageTable, page_tokens: int) -> None:
        self._table = table
        self.page_tokens = page_tokens

    @property
    def total(self) -> int:
        """Pages there are."""
        return self._table.total

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return self._table.free

    def borrow(self, sequence: Sequence) -> None:
        """Take pages from the cache as far as they go on from where the sequence stands.

        A page that it has computed in part is given up for a whole one.
        """
        while sequence.page_borrowable(sequence.page):
            found = self._table.find(sequence.key(sequence.page))
            if found is None:
                break
            if sequence.is_within_page:
                self._table.release([sequence.block_table.pop()])
            sequence.borrow(found)
        if sequence.drops:
            self._skip(sequence)
            self._drop(sequence)

    def hold(self, sequence: Sequence, count: int) -> None:
        """Put new pages behind the others; so many are free."""
        if count > 0:
            sequence.block_table.extend(self._table.allocate(count))

    def complete(self, sequence: Sequence, end: int) -> None:
        """The KV of all positions below ``end`` is there: name the pages that became full."""
        first, last = sequence.computed // self.page_tokens, end // self.page_tokens
        for page in range(first, last):
            held = int(sequence.block_table.view(page, page + 1)[0])
            self._table.register(held, sequence.key(page), sequence.label(page))
        sequence.advance(end)
        self._drop(sequence)

    def count_missing(self, sequence: Sequence, end: int, below: Knows) -> None:
        """Positions below ``end`` were computed: count the pages that nobody had, each once.

        A layer that forgets pages by design says nothing about what was lost.
        """
        keeping = [g for g, retention in enumerate(sequence.spec.retentions) if not retention.drops]
        last = min(end, sequence.document_end) // self.page_tokens
        for page in range(max(sequence.page, sequence.sought), last):
            key = sequence.key(page)
            found = any(self._table.knows(key, (g,)) or below(key, g) for g in keeping)
            sequence.missing_tokens += 0 if found or not keeping else self.page_tokens
        sequence.sought = max(sequence.sought, last)

    def release(self, sequence: Sequence) -> None:
        """Give up all pages; the last ones are evicted first."""
        for group in self._table.groups:
            self._table.release(sequence.pages(group)[::-1].tolist(), (group,))
        sequence.forget_pages()

    def evict(self, sequence: Sequence) -> None:
        """Preempt a sequence; it goes on when as much is free as it had to itself, and more."""
        sequence.parked |= sequence.pending == 0
        before = self.free
        self.release(sequence)
        sequence.evict()
        sequence.resume_pages = min(self.free - before + 1, self.total)

    def reachable(self, sequence: Sequence, knows: Knows) -> int:
        """The last page before which it could stand if it had all parts that ``knows`` knows."""
        page = sequence.page
        while page < sequence.prefix_pages:
            if not sequence.page_borrowable(page):
                return page
            key = sequence.key(page)
            if not all(knows(key, group) for group in self._table.groups):
                return page
            page += 1
        return self._standing(sequence, page, knows)

    def needed(self, sequence: Sequence, stop: int) -> list[tuple[int, tuple[int, ...]]]:
        """Pages that it must have to stand before page ``stop``, and their groups."""
        retentions = sequence.spec.retentions
        droppable = [retention.droppable(stop) for retention in retentions]
        parts = [
            (
                page,
                tuple(
                    group
                    for group in self._table.groups
                    if page < sequence.prefix_pages or page not in droppable[group]
                ),
            )
            for page in range(sequence.page, stop)
        ]
        return [(page, groups) for page, groups in parts if groups]

    def check(
        self,
        sequences: Collection[Sequence],
        holds: Collection[tuple[PageId, tuple[int, ...]]] = (),
    ) -> None:
        """Verify that every page is held as often as it stands in a block table or in ``holds``.

        Raises:
            AssertionError: the accounting is wrong.
        """
        self._table.check()
        for group in self._table.groups:
            held = Counter(page for page, groups in holds if group in groups)
            for sequence in sequences:
                pages = sequence.pages(group).tolist()
                assert len(pages) == len(set(pages))
                assert HOLE not in pages
                held.update(pages)
            for page in range(len(self._table.frames)):
                assert held[page] == self._table.references(page, group)
        for sequence in sequences:
            assert len(sequence.block_table) >= sequence.pages_for(sequence.computed)

    def frames(self, sequence: Sequence) -> int:
        """Frames that hold what the sequence holds; shared ones count for each holder."""
        return sum(
            size * len(sequence.pages(group)) for group, size in enumerate(self._table.sizes)
        )

    def pages(self, sequence: Sequence) -> int:
        """Pages of which the sequence holds a part."""
        return int((sequence.block_table.view(0, len(sequence.block_table)) != HOLE).sum())

    def reach(self, sequence: Sequence) -> int:
        """Pages that its block table could have if it held all frames there are."""
        given_up = sum(
            size * len(dropped)
            for size, dropped in zip(self._table.sizes, sequence.dropped, strict=True)
        )
        pages = self.total + given_up // self._table.page_frames
        return min(pages, self._numbered(sequence.spec.retentions))

    def longest(self, retentions: Collection[Retention]) -> int:
        """The most pages that a sequence can have, if it holds all frames there are."""
        pages = longest(self._table.sizes, self._frames, retentions)
        return min(pages, self._numbered(retentions))

    def fits(self, sequence: Sequence, positions: int) -> bool:
        """True where all frames together hold what computing so many positions needs at once."""
        pages, retentions = sequence.pages_for(positions), sequence.spec.retentions
        frames = sum(
            size * retention.held_pages(pages)
            for size, retention in zip(self._table.sizes, retentions, strict=True)
        )
        return frames <= self._frames and pages <= self._numbered(retentions)

    @property
    def _frames(self) -> int:
        """Frames of all whole pages."""
        return self.total * self._table.page_frames

    def _numbered(self, retentions: Collection[Retention]) -> int:
        """Pages that a sequence may have, each of which keeps its number, if any does."""
        everything = all(retention.drops for retention in retentions)
        return UNBOUNDED if everything else self._table.numbers

    def tables(self, sequence: Sequence, pages: int) -> BlockTables:
        """Where the first pages lie."""
        table = sequence.block_table.view(0, pages)
        if self._table.sizes == (1,):
            return BlockTables((table,), None)
        frames = self._table.frames[table]
        frames[table == HOLE] = HOLE
        numbers = table if 0 in self._table.sizes else None
        return BlockTables(tuple(np.ascontiguousarray(frames.T)), numbers)

    def _drop(self, sequence: Sequence) -> None:
        """Give up the parts that nothing will see; they stay cached until they are needed."""
        for group in self._table.groups:
            self._give_up(sequence, group, sequence.droppable(group), len(sequence.block_table))

    def _give_up(self, sequence: Sequence, group: int, places: range, held: int) -> None:
        """Hold a group's part of these pages no more; it holds none from ``held`` on."""
        first, stop = max(places.start, sequence.dropped[group].stop), places.stop
        if first >= stop:
            return
        pages = sequence.block_table.view(min(first, held), min(stop, held))
        self._table.release(pages.tolist(), (group,))
        sequence.drop(group, places)

    def _skip(self, sequence: Sequence) -> None:
        """Go on where all that is still seen is cached, though pages before it are gone."""
        # One that has computed whole pages finds what others add page by page.
        computes = sequence.page * sequence.page_tokens > sequence.borrowed
        if computes or sequence.page < sequence.prefix_pages:
            return
        place = self._standing(sequence, sequence.page, self._is_cached)
        if place == sequence.page:
            return
        if sequence.is_within_page:
            self._table.release([sequence.block_table.pop()])
        retentions = sequence.spec.retentions
        droppable = [retention.droppable(place) for retention in retentions]
        for page in range(sequence.page, place):
            seen = [group for group in self._table.groups if page not in droppable[group]]
            found = self._table.find(sequence.key(page), seen) if seen else HOLE
            assert found is not None
            sequence.block_table.append(found)
        for group, places in enumerate(droppable):
            self._give_up(sequence, group, places, sequence.page)
        sequence.skip(place)

    def _is_cached(self, key: PageKey, group: int) -> bool:
        return self._table.knows(key, (group,))

    def _standing(self, sequence: Sequence, first: int, knows: Knows) -> int:
        """The last page before which every group's needs are known, from ``first`` on."""
        place = first
        retentions = sequence.spec.retentions
        runs = [0] * len(retentions)
        standing = first
        while sequence.page_borrowable(place):
            key = sequence.key(place)
            known = [knows(key, group) for group in self._table.groups]
            if not all(k or r.drops for k, r in zip(known, retentions, strict=True)):
                break
            runs = [run + 1 if k else 0 for run, k in zip(runs, known, strict=True)]
            place += 1
            if all(
                run >= min(retention.window_pages or 0, place - first)
                for run, retention in zip(runs, retentions, strict=True)
            ):
                standing = place
        return standing


def victim(requester: Sequence, sequences: Iterable[Sequence]) -> Sequence | None:
    """Whose pages the requester may take: of those that wait for their client, else of those
    that go after it, the last in rank.

    One that only reads ahead takes nobody's: two of them would evict each other for ever.
    """
    if requester.parked:
        return None
    candidates = (
        other
        for other in sequences
        if other is not requester
        and len(other.block_table)
        and (other.is_waiting or other.rank > requester.rank)
    )
    return max(candidates, key=lambda other: (other.is_waiting, other.rank), default=None)
