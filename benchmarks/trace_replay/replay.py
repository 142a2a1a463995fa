"""Requests through caches, at their times of arrival: one tier, or the page pool and an SSD."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.trace_replay.index import RankedIndex
from benchmarks.trace_replay.tally import Tally
from benchmarks.trace_replay.trace import BLOCK_PAGES, Request, cost_of
from longspan.blobstore.eviction import Entry
from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.pages import PageId, PageTable


class Cache(Protocol):
    """What a request needs of one tier."""

    def __contains__(self, key: bytes) -> bool: ...

    def use(self, key: bytes, now_s: float) -> None:
        """An entry was found."""
        ...

    def put(self, key: bytes, entry: Entry, now_s: float) -> bool:
        """Add an entry, or note that it was computed again."""
        ...


def replay(requests: Iterable[Request], cache: Cache) -> Tally:
    """Each prompt uses the blocks it finds and adds the others, all at its arrival."""
    tally = Tally()
    for request in requests:
        keys, now = request.blocks, request.arrival_s
        found = next((i for i, key in enumerate(keys) if key not in cache), len(keys))
        tally.add(request, found)
        for key in keys[:found]:
            cache.use(key, now)
        for depth in range(found, len(keys)):
            cache.put(keys[depth], Entry(1, cost_of(depth), depth), now)
    return tally


@dataclass(slots=True)
class TwoTiers:
    """The worker's page pool, and below it the SSD store's index.

    A page is written to the SSD when it is computed; what the pool evicts is still there. A page
    read from the SSD lies in the pool afterwards.

    Attributes:
        pool: pages in memory.
        ssd: pages on the SSD, each of size 1; None: there is none.
        told: the SSD's index is told of the pages that the pool found.
        tally: blocks found anywhere.
        pool_pages, ssd_pages: pages found here and there.
    """

    pool: PageTable
    ssd: RankedIndex | None = None
    told: bool = False
    tally: Tally = field(default_factory=Tally)
    pool_pages: int = 0
    ssd_pages: int = 0

    def serve(self, request: Request) -> None:
        """One prompt, alone in the pool. Raises OutOfPages if it does not fit."""
        held: list[PageId] = []
        for key in request.pages:
            page = self._find(key, request.arrival_s)
            if page is None:
                break
            held.append(page)
        found = len(held)
        self.tally.add(request, found // BLOCK_PAGES)
        held += [
            self._compute(key, depth, request.arrival_s)
            for depth, key in enumerate(request.pages[found:], found)
        ]
        self.pool.release(held[::-1])

    def _find(self, key: PageKey, now_s: float) -> PageId | None:
        page = self.pool.find(key)
        if page is not None:
            self.pool_pages += 1
            if self.told and self.ssd is not None and key in self.ssd:
                self.ssd.use(key, now_s)
            return page
        if self.ssd is None or key not in self.ssd:
            return None
        self.ssd_pages += 1
        self.ssd.use(key, now_s)
        [page] = self.pool.allocate(1)
        self.pool.register(page, key)
        return page

    def _compute(self, key: PageKey, depth: int, now_s: float) -> PageId:
        [page] = self.pool.allocate(1)
        self.pool.register(page, key)
        if self.ssd is not None:
            self.ssd.put(key, _page(depth), now_s)
        return page


def _page(depth: int) -> Entry:
    return Entry(1, cost_of(depth // BLOCK_PAGES) / BLOCK_PAGES, depth)
