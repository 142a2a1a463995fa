"""Which decode rows read which pages, turned around: for each page, its readers. Pure integers.

A page's keys then cross the memory bus once for all sequences that share it, and neighbouring
pages are read where they lie, without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longspan.worker.attention.pool import PAGE_TOKENS

MOST_RUNS = 8
"""Runs of neighbours read in place; pages beyond them are copied together for one call."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PageEntries:
    """Pages that have equally many readers.

    Attributes:
        pages: int64 [entries], ascending.
        low, high: int64 [entries]; the readers see the keys [low, high) of the page.
        readers: int64 [entries, readers], indices of decode rows.
    """

    pages: Integers
    low: Integers
    high: Integers
    readers: Integers

    def __getitem__(self, part: slice | Integers) -> PageEntries:
        return PageEntries(self.pages[part], self.low[part], self.high[part], self.readers[part])

    @property
    def consecutive(self) -> bool:
        """True when the pages are neighbours."""
        return bool(self.pages[-1] - self.pages[0] == len(self.pages) - 1)

    @property
    def partial(self) -> bool:
        """True when some page is not seen whole."""
        return bool((self.low > 0).any() or (self.high < PAGE_TOKENS).any())


def page_entries(
    ends: Integers, tables: Sequence[npt.NDArray[np.int32]], window: int | None
) -> list[PageEntries]:
    """The entries of rows that see the keys [max(0, end - window), end) of their tables."""
    rows, pages, low, high = (
        np.concatenate(part) for part in zip(*_row_pages(ends, tables, window), strict=True)
    )
    order = np.lexsort((rows, high, low, pages))
    rows, pages, low, high = rows[order], pages[order], low[order], high[order]
    change = (np.diff(pages) != 0) | (np.diff(low) != 0) | (np.diff(high) != 0)
    first = np.concatenate(([0], np.flatnonzero(change) + 1))
    readers = np.diff(np.concatenate((first, [len(pages)])))
    return [
        PageEntries(
            pages[chosen := first[readers == count]],
            low[chosen],
            high[chosen],
            rows[chosen[:, None] + np.arange(count)],
        )
        for count in np.unique(readers)
    ]


def runs(entries: PageEntries) -> Iterator[PageEntries]:
    """Cut into runs of neighbours, the longest ``MOST_RUNS``; what remains comes last, as one."""
    breaks = np.flatnonzero(np.diff(entries.pages) != 1) + 1
    bounds = np.concatenate(([0], breaks, [len(entries.pages)]))
    lengths = np.diff(bounds)
    longest = np.sort(np.argsort(-lengths, kind="stable")[:MOST_RUNS])
    for run in longest:
        yield entries[slice(int(bounds[run]), int(bounds[run + 1]))]
    if len(lengths) > MOST_RUNS:
        left = np.ones(len(entries.pages), bool)
        for run in longest:
            left[bounds[run] : bounds[run + 1]] = False
        yield entries[np.flatnonzero(left)]


def _row_pages(
    ends: Integers, tables: Sequence[npt.NDArray[np.int32]], window: int | None
) -> Iterator[tuple[Integers, Integers, Integers, Integers]]:
    for row, (end, table) in enumerate(zip(ends.tolist(), tables, strict=True)):
        start = max(0, end - window) if window is not None else 0
        index = np.arange(start // PAGE_TOKENS, -(-end // PAGE_TOKENS))
        low = np.maximum(start - index * PAGE_TOKENS, 0)
        high = np.minimum(end - index * PAGE_TOKENS, PAGE_TOKENS)
        yield np.full(len(index), row), table[index].astype(np.int64), low, high
