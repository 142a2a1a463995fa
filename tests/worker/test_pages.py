"""The page table against a plain record of who holds what."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.pages import OutOfPages, PageTable

PAGES = 6


def key(number: int) -> PageKey:
    """A page key."""
    return PageKey(bytes([number]) * 32)


class PageAccounting(RuleBasedStateMachine):
    """The naive model: references counted in one dict, released pages with a key in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.table = PageTable(PAGES)
        self.held: Counter[int] = Counter()
        self.keys: dict[int, PageKey] = {}
        self.released: list[int] = []

    def free_pages(self) -> list[int]:
        """Free ones first, then cached ones, as they must be given out."""
        unused = [page for page in range(PAGES) if not self.held[page]]
        return [page for page in unused if page not in self.released] + self.released

    @rule(count=st.integers(0, PAGES))
    def allocate(self, count: int) -> None:
        expected = self.free_pages()[:count]
        if len(expected) < count:
            with pytest.raises(OutOfPages):
                self.table.allocate(count)
            return
        assert sorted(self.table.allocate(count)) == sorted(expected)
        for page in expected:
            self.held[page] = 1
            self.keys.pop(page, None)
        self.released = [page for page in self.released if page not in expected]

    @rule(number=st.integers(0, 3))
    def find(self, number: int) -> None:
        expected = next((page for page, held in self.keys.items() if held == key(number)), None)
        assert self.table.find(key(number)) == expected
        if expected is not None:
            self.held[expected] += 1
            self.released = [page for page in self.released if page != expected]

    @precondition(lambda self: self.held.total())
    @rule(data=st.data(), number=st.integers(0, 3))
    def register(self, data: st.DataObject, number: int) -> None:
        private = [page for page in self.held.elements() if page not in self.keys]
        if private:
            page = data.draw(st.sampled_from(private))
            is_new = key(number) not in self.keys.values()
            assert self.table.register(page, key(number)) == is_new
            if is_new:
                self.keys[page] = key(number)

    @precondition(lambda self: self.held.total())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        pages = data.draw(st.lists(st.sampled_from(list(self.held.elements())), unique=True))
        self.table.release(pages)
        for page in pages:
            self.held[page] -= 1
            if not self.held[page] and page in self.keys:
                self.released.append(page)

    @invariant()
    def the_table_agrees_with_the_record(self) -> None:
        self.table.check()
        assert self.table.free == len(self.free_pages())
        assert self.table.cached == len(self.released)
        assert self.table.used == PAGES - self.table.free
        assert [self.table.references(page) for page in range(PAGES)] == [
            self.held[page] for page in range(PAGES)
        ]


TestPageAccounting = PageAccounting.TestCase
TestPageAccounting.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_a_chain_is_evicted_from_its_end() -> None:
    """Released in reverse, a sequence's first page outlives the others."""
    table = PageTable(3)
    pages = table.allocate(3)
    for number, page in enumerate(pages):
        assert table.register(page, key(number))
    table.release(reversed(pages))
    assert set(table.allocate(2)) == {pages[2], pages[1]}
    assert table.find(key(0)) == pages[0]
    assert table.find(key(1)) is None


def test_a_page_that_is_not_held_cannot_be_released() -> None:
    """Such a call is a fault of ours, and stops at once."""
    table = PageTable(1)
    with pytest.raises(AssertionError):
        table.release([0])


def test_a_refused_allocation_takes_nothing() -> None:
    """All or nothing."""
    table = PageTable(3)
    with pytest.raises(OutOfPages, match="4 pages wanted, 3 of 3 are free"):
        table.allocate(4)
    assert table.free == 3


class GroupAccounting(RuleBasedStateMachine):
    """Three groups of layers, one of which needs no frame; every part has its own holders."""

    sizes = (2, 1, 0)
    frames = 16
    numbers = 7

    def __init__(self) -> None:
        super().__init__()
        self.table = PageTable(self.frames, self.sizes, pages=self.numbers)
        self.held: Counter[tuple[int, int]] = Counter()
        self.private: list[int] = []

    def parts(self, page: int) -> list[int]:
        """Groups whose part of a page is held."""
        return [group for group in range(3) if self.held[page, group]]

    @rule(count=st.integers(0, 4))
    def allocate(self, count: int) -> None:
        """What ``free`` promises is given, and no more."""
        if count > self.table.free:
            with pytest.raises(OutOfPages):
                self.table.allocate(count)
            return
        for page in self.table.allocate(count):
            assert not self.parts(page)
            self.held.update((page, group) for group in range(3))
            self.private.append(page)

    @rule(number=st.integers(0, 3), groups=st.sets(st.integers(0, 2), min_size=1))
    def find(self, number: int, groups: set[int]) -> None:
        known = self.table.knows(key(number), groups)
        page = self.table.find(key(number), groups)
        assert (page is not None) == known
        if page is not None:
            self.held.update((page, group) for group in groups)

    @precondition(lambda self: self.private)
    @rule(data=st.data(), number=st.integers(0, 3))
    def register(self, data: st.DataObject, number: int) -> None:
        """A whole page takes the key from one that is not whole any more."""
        page = data.draw(st.sampled_from(self.private))
        if len(self.parts(page)) < 3:
            return
        whole = self.table.knows(key(number))
        assert self.table.register(page, key(number)) == (not whole)
        if not whole:
            self.private.remove(page)
            assert self.table.knows(key(number))

    @precondition(lambda self: self.held.total())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        page, group = data.draw(st.sampled_from(sorted(self.held.elements())))
        self.table.release([page], [group])
        self.held[page, group] -= 1
        if not self.parts(page) and page in self.private:
            self.private.remove(page)

    @invariant()
    def the_table_agrees_with_the_record(self) -> None:
        self.table.check()
        for page in range(self.numbers):
            for group in range(3):
                assert self.table.references(page, group) == self.held[page, group]


TestGroupAccounting = GroupAccounting.TestCase
TestGroupAccounting.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
