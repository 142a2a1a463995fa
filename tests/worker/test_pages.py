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
