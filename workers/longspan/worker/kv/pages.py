"""Reference-counted KV pages, and a least-recently-used cache of what nobody holds of them.

Accounting only: the tensors live elsewhere. A page is 256 tokens in all layers. It lies in frames
of one size, as many for each group of layers as that group needs: a sequence can give up what
some layers keep of a page and hold the rest. A group may need no frame at all: what it keeps of
a page is found by the page's number. A page's part of one group is

    absent   it lies nowhere
    used     as many sequences hold it as it has references
    cached   nobody holds it, but its contents are known by a key; its frames are given out again
             when no free one is left, the least recently released part first
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.label import Label
from longspan.worker.kv.room import Room
from longspan.worker.kv.subjects import Name, Subjects

PageId = int

ABSENT = -1
"""Instead of a frame: the page's part lies nowhere."""


NOBODY = Label()


@dataclass(slots=True, eq=False)
class Known:
    """What is known of a page that a key may find.

    Attributes:
        hits: how often it was found.
    """

    label: Label
    hits: int = 0


class OutOfPages(Exception):
    """Fewer pages are free or cached than were asked for."""


class PageTable:
    """Who holds which page, what it holds, and where it lies.

    Args:
        frames: there are; their numbers are below it.
        groups: frames that a page takes for each group of layers.
        pages: numbers that pages may have; None: as many as lie in frames at once.

    Attributes:
        total: whole pages that fit.
        page_frames: frames of a whole page.
        groups: numbers of all groups.
        sizes: frames of a page for each of them.
        numbers: pages that there may be, whether they lie somewhere or not.
        found: how often ``find`` found a page.
        frames: int32 [pages, page_frames], where the parts of each page lie, group after group.
            Where a page is one frame, the page's number is that of its frame.
    """

    def __init__(
        self, frames: int, groups: Sequence[int] = (1,), *, pages: int | None = None
    ) -> None:
        self.page_frames = sum(groups)
        self.total = frames // self.page_frames
        self.groups = tuple(range(len(groups)))
        ends = np.cumsum(groups).tolist()
        self._columns = [slice(end - size, end) for size, end in zip(groups, ends, strict=True)]
        self.sizes = tuple(groups)
        most = pages or frames // min(size for size in groups if size)
        self.numbers = most
        self.found = 0
        self.frames = np.full((most, self.page_frames), ABSENT, np.int32)
        self._references = [[0] * len(groups) for _ in range(most)]
        self._present = [[False] * len(groups) for _ in range(most)]
        self._idle = 0
        self._free_ids = list(range(most))
        self._free_frames = list(range(frames))
        self._cached: OrderedDict[tuple[PageId, int], None] = OrderedDict()
        self._cached_frames = 0
        self._key_of: dict[PageId, PageKey] = {}
        self._page_of: dict[PageKey, PageId] = {}
        self._known: dict[PageId, Known] = {}
        self._subjects: Subjects[PageId] = Subjects()

    @property
    def free(self) -> int:
        """Whole pages that ``allocate`` can give, by what is free or cached."""
        room = self.room
        return min(room.frames // self.page_frames, room.numbers)

    @property
    def room(self) -> Room:
        """What is free or cached."""
        frames = len(self._free_frames) + self._cached_frames
        return Room(frames, len(self._free_ids) + self._idle)

    def taking(self, key: PageKey, groups: Collection[int]) -> Room:
        """What is gone of ``room`` when somebody holds these parts, found here or brought anew."""
        if not self.knows(key, groups):
            return Room(sum(self.sizes[group] for group in groups), 1)
        page = self._page_of[key]
        cached = sum(self.sizes[group] for group in groups if (page, group) in self._cached)
        return Room(cached, int(self._is_idle(page)))

    @property
    def cached(self) -> int:
        """Whole pages that would fit into what nobody holds and a key may find."""
        return self._cached_frames // self.page_frames

    @property
    def used(self) -> int:
        """Whole pages that would fit into what somebody holds."""
        return self.total - self.free

    @property
    def numbered(self) -> int:
        """Pages that have a number, whether they lie in frames or not."""
        return self.numbers - len(self._free_ids)

    def references(self, page: PageId, group: int = 0) -> int:
        """How many times a page's part is held."""
        return self._references[page][group]

    def allocate(self, count: int) -> list[PageId]:
        """Take whole pages of unknown contents, each with one reference: free frames with the
        lowest numbers first, then the least recently used cached ones.

        Raises:
            OutOfPages: there are not that many; none is taken.
        """
        if count > self.free:
            raise OutOfPages(f"{count} pages wanted, {self.free} of {self.total} are free")
        while len(self._free_frames) < count * self.page_frames or len(self._free_ids) < count:
            self._evict(*next(iter(self._cached)))
        return [self._take() for _ in range(count)]

    def find(self, key: PageKey, groups: Iterable[int] | None = None) -> PageId | None:
        """The page of this key, its parts held once more; None if no page has key and parts."""
        page = self.hold(key, groups)
        if page is not None:
            self._known[page].hits += 1
            self.found += 1
        return page

    def hold(self, key: PageKey, groups: Iterable[int] | None = None) -> PageId | None:
        """As ``find``, for somebody who has no use for the page but must not lose it."""
        wanted = self.groups if groups is None else tuple(groups)
        if not self.knows(key, wanted):
            return None
        page = self._page_of[key]
        self._idle -= wanted != () and not any(self._references[page])
        for group in wanted:
            if (page, group) in self._cached:
                del self._cached[page, group]
                self._cached_frames -= self.sizes[group]
            self._references[page][group] += 1
        return page

    def knows(self, key: PageKey, groups: Iterable[int] | None = None) -> bool:
        """True where ``find`` would find a page; nothing is held."""
        page = self._page_of.get(key)
        if page is None:
            return False
        return all(self._is_present(page, g) for g in (self.groups if groups is None else groups))

    def register(self, page: PageId, key: PageKey, label: Label = NOBODY) -> bool:
        """Say what a used page holds, and whose it is, now that it is full and computed.

        Returns:
            False where another page has the key and all parts already: this one stays private.
        """
        assert max(self._references[page]) > 0
        assert page not in self._key_of
        other = self._page_of.get(key)
        if other is not None:
            present = [group for group in self.groups if self._is_present(page, group)]
            if all(self._is_present(other, group) for group in present):
                return False
            self._forget(other)
        self._key_of[page] = key
        self._page_of[key] = page
        self._known[page] = Known(label)
        self._subjects.add(label, page)
        return True

    def known(
        self, tenant: str, subjects: Collection[str] = ()
    ) -> Iterator[tuple[Name, list[Known]]]:
        """What is known of pages that a key may find, subject by subject; of all of a tenant's
        where none is named, of all tenants' where the tenant's name is empty."""
        for name, pages in self._subjects.chosen(tenant, subjects):
            yield name, [self._known[page] for page in pages]

    def rename(self, tenant: str, old: str, new: str) -> None:
        """A subject has another name from now on."""
        for page in self._subjects.belonging(tenant, old):
            known = self._known[page]
            self._subjects.remove(known.label, page)
            known.label = replace(known.label, subject=new)
            self._subjects.add(known.label, page)

    def forget(self, tenant: str, subject: str) -> int:
        """No key finds a tenant's pages of this subject any more; empty names mean all.

        Returns:
            How many pages.
        """
        pages = self._subjects.belonging(tenant, subject)
        for page in pages:
            self._forget(page)
        return len(pages)

    def release(self, pages: Iterable[PageId], groups: Iterable[int] | None = None) -> None:
        """Give up one reference of each page's parts.

        The last one makes a part of a page with a key cached and any other free. Parts are
        evicted in the order of their release: release a sequence's last page first, a chain is
        of no use without its beginning.
        """
        released = self.groups if groups is None else tuple(groups)
        for page in pages:
            for group in released:
                assert self._references[page][group] > 0
                self._references[page][group] -= 1
                if self._references[page][group] == 0:
                    self._retire(page, group)
            self._idle += released != () and self._is_idle(page)

    def check(self) -> None:
        """Verify the accounting.

        Raises:
            AssertionError: it is wrong.
        """
        free = set(self._free_frames)
        placed = self.frames[self.frames != ABSENT].tolist()
        assert len(free) == len(self._free_frames)
        assert len(placed) == len(set(placed))
        assert not free & set(placed)
        ids = set(self._free_ids)
        cached_frames = idle = 0
        for page, counts in enumerate(self._references):
            present = [group for group in self.groups if self._is_present(page, group)]
            assert bool(present) == (page not in ids)
            idle += self._is_idle(page)
            assert min(counts) >= 0
            for group in self.groups:
                cached = (page, group) in self._cached
                assert cached == (group in present and counts[group] == 0)
                assert group in present or counts[group] == 0
                lies = self.frames[page, self._columns[group]] != ABSENT
                assert lies.all() if group in present else not lies.any()
                assert not cached or page in self._key_of
                cached_frames += self.sizes[group] * cached
        assert (cached_frames, idle) == (self._cached_frames, self._idle)
        assert not ids & self._key_of.keys()
        assert {key: page for page, key in self._key_of.items()} == self._page_of
        assert self._known.keys() == self._key_of.keys()
        labels = {page: known.label for page, known in self._known.items()}
        for (tenant, subject), pages in self._subjects.chosen("", ()):
            assert pages
            for page in pages:
                label = labels.pop(page)
                assert (label.tenant, label.subject) == (tenant, subject)
        assert not labels

    def _is_present(self, page: PageId, group: int) -> bool:
        return self._present[page][group]

    def _is_idle(self, page: PageId) -> bool:
        """True where something of the page is known and nobody holds any of it."""
        return any(self._present[page]) and not any(self._references[page])

    def _take(self) -> PageId:
        page = heapq.heappop(self._free_ids)
        self.frames[page] = [heapq.heappop(self._free_frames) for _ in range(self.page_frames)]
        self._references[page] = [1] * len(self.groups)
        self._present[page] = [True] * len(self.groups)
        return page

    def _retire(self, page: PageId, group: int) -> None:
        if page in self._key_of:
            self._cached[page, group] = None
            self._cached_frames += self.sizes[group]
        else:
            self._vacate(page, group)

    def _evict(self, page: PageId, group: int) -> None:
        """Give a cached part's frames back."""
        was_idle = self._is_idle(page)
        del self._cached[page, group]
        self._cached_frames -= self.sizes[group]
        self._vacate(page, group)
        self._idle -= was_idle and not self._is_idle(page)

    def _vacate(self, page: PageId, group: int) -> None:
        """The part lies nowhere any more; nobody holds it, and it is not in the cache."""
        for frame in self.frames[page, self._columns[group]].tolist():
            heapq.heappush(self._free_frames, frame)
        self.frames[page, self._columns[group]] = ABSENT
        self._present[page][group] = False
        if not any(self._present[page]):
            key = self._key_of.pop(page, None)
            if key is not None:
                del self._page_of[key]
                self._subjects.remove(self._known.pop(page).label, page)
            heapq.heappush(self._free_ids, page)

    def _forget(self, page: PageId) -> None:
        """Nothing finds the page any more; what nobody holds of it is free."""
        del self._page_of[self._key_of.pop(page)]
        self._subjects.remove(self._known.pop(page).label, page)
        for group in self.groups:
            if (page, group) in self._cached:
                self._evict(page, group)
