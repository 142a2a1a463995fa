"""Reference-counted KV pages, and a least-recently-used cache of those that nobody holds.

Accounting only: the tensors live elsewhere. A page is

    free     nobody holds it and nothing is known of its contents
    used     as many sequences hold it as it has references
    cached   nobody holds it, but its contents are known by a key; it is given out again
             when no free page is left, the least recently released one first
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable

from longspan.worker.kv.chain import PageKey

PageId = int


class OutOfPages(Exception):
    """Fewer pages are free or cached than were asked for."""


class PageTable:
    """Who holds which page, and which page holds what.

    Attributes:
        total: pages there are; ids are below it.
    """

    def __init__(self, pages: int) -> None:
        self.total = pages
        self._references = [0] * pages
        self._free = list(range(pages))
        self._cached: OrderedDict[PageId, None] = OrderedDict()
        self._key_of: dict[PageId, PageKey] = {}
        self._page_of: dict[PageKey, PageId] = {}

    @property
    def free(self) -> int:
        """Pages that ``allocate`` can give, cached ones included."""
        return len(self._free) + len(self._cached)

    @property
    def cached(self) -> int:
        """Pages that nobody holds and that may be found by their key."""
        return len(self._cached)

    @property
    def used(self) -> int:
        """Pages that somebody holds."""
        return self.total - self.free

    def references(self, page: PageId) -> int:
        """How many times a page is held."""
        return self._references[page]

    def allocate(self, count: int) -> list[PageId]:
        """Take pages of unknown contents, each with one reference: free ones with the lowest
        ids first, then the least recently used cached ones.

        Raises:
            OutOfPages: there are not that many; none is taken.
        """
        if count > self.free:
            raise OutOfPages(f"{count} pages wanted, {self.free} of {self.total} are free")
        pages = [self._take() for _ in range(count)]
        for page in pages:
            self._references[page] = 1
        return pages

    def find(self, key: PageKey) -> PageId | None:
        """The page of this key, with one more reference; None if no page has it."""
        page = self._page_of.get(key)
        if page is not None:
            self._cached.pop(page, None)
            self._references[page] += 1
        return page

    def knows(self, key: PageKey) -> bool:
        """True where ``find`` would find a page; nothing is held."""
        return key in self._page_of

    def register(self, page: PageId, key: PageKey) -> bool:
        """Say what a used page holds, now that it is full and computed.

        Returns:
            False where another page has the key already: this one stays private.
        """
        assert self._references[page] > 0
        assert page not in self._key_of
        if key in self._page_of:
            return False
        self._key_of[page] = key
        self._page_of[key] = page
        return True

    def share(self, page: PageId) -> None:
        """Hold a used page once more."""
        assert self._references[page] > 0
        self._references[page] += 1

    def release(self, pages: Iterable[PageId]) -> None:
        """Give up one reference of each page.

        The last one makes a page with a key cached and any other page free. Pages are evicted
        in the order of their release: release a sequence's last page first, a chain is of
        no use without its beginning.
        """
        for page in pages:
            assert self._references[page] > 0
            self._references[page] -= 1
            if self._references[page] == 0:
                self._retire(page)

    def check(self) -> None:
        """Verify the accounting.

        Raises:
            AssertionError: it is wrong.
        """
        free = set(self._free)
        unused = {page for page in range(self.total) if self._references[page] == 0}
        assert len(free) == len(self._free)
        assert not free & self._cached.keys()
        assert free | self._cached.keys() == unused
        assert min(self._references, default=0) >= 0
        assert self._cached.keys() <= self._key_of.keys()
        assert not free & self._key_of.keys()
        assert {key: page for page, key in self._key_of.items()} == self._page_of

    def _take(self) -> PageId:
        if self._free:
            return heapq.heappop(self._free)
        page, _ = self._cached.popitem(last=False)
        del self._page_of[self._key_of.pop(page)]
        return page

    def _retire(self, page: PageId) -> None:
        if page in self._key_of:
            self._cached[page] = None
        else:
            heapq.heappush(self._free, page)
