"""The slots of pages that lie on the host, against a plain list in the order of use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from longspan.worker.attention.host_slots import HostSlots
from longspan.worker.attention.slot_cache import MOVES, IllegalMove, Move, SlotCache, SlotState

SLOTS = 4
PAGES = st.lists(st.integers(0, 9), max_size=SLOTS)


class Slots(RuleBasedStateMachine):
    """The naive model: pages in the order of their last use, and what each slot holds."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = SlotCache(SLOTS)
        self.used: list[int] = []
        self.held: set[int] = set()
        self.contents: dict[int, int] = {}

    @rule(pages=PAGES)
    def hold(self, pages: list[int]) -> None:
        if len(self.held | set(pages)) > SLOTS:
            return
        known = [page for page in dict.fromkeys(pages) if page in self.used]
        missing = [page for page in dict.fromkeys(pages) if page not in self.used]
        self.used = [page for page in self.used if page not in known] + known
        copied = self.cache.hold(pages)
        assert [page for page, _ in copied] == missing
        for page, slot in copied:
            if len(self.used) == SLOTS:
                gone = self.used.pop(0)
                assert self.contents[slot] == gone, "the one used longest ago makes room"
            self.used.append(page)
            self.contents[slot] = page
        self.held |= set(pages)
        assert [self.contents[slot] for slot in self.cache.slots_of(pages)] == pages

    @rule()
    def leave(self) -> None:
        self.cache.leave()
        self.held.clear()

    @rule(pages=PAGES)
    def forget(self, pages: list[int]) -> None:
        free = set(pages) - self.held
        self.cache.forget(free)
        self.used = [page for page in self.used if page not in free]

    @invariant()
    def states_say_what_slots_are_good_for(self) -> None:
        states = self.cache.states
        assert len(self.cache) == len(self.used) == SLOTS - states.count(SlotState.FREE)
        assert states.count(SlotState.HELD) == len(self.held)
        lying = self.cache.slots_of(self.used)
        assert len(set(lying)) == len(lying)
        for page, slot in zip(self.used, lying, strict=True):
            expected = SlotState.HELD if page in self.held else SlotState.KEPT
            assert states[slot] is expected


TestSlots = Slots.TestCase


def test_what_is_held_is_never_given_away() -> None:
    cache = SlotCache(2)
    cache.hold([1, 2])
    with pytest.raises(IllegalMove, match="EVICT in HELD"):
        cache.hold([3])
    with pytest.raises(IllegalMove, match="FORGET in HELD"):
        cache.forget([1])


def test_every_state_has_a_way_in_and_a_way_out() -> None:
    """And a move that is not in the table is refused in every state."""
    assert {state for state, _ in MOVES} == set(MOVES.values()) == set(SlotState)
    assert {move for _, move in MOVES} == set(Move)


@given(
    st.lists(
        st.lists(st.integers(0, 5), min_size=2, max_size=2, unique=True), min_size=1, max_size=9
    ),
    st.data(),
)
def test_a_rewritten_page_is_copied_again(calls: list[list[int]], data: st.DataObject) -> None:
    """Each kv head has slots of its own; what it reads is what the host has then."""
    heads, first = 2, 10
    slots = HostSlots(first, 3, heads, 6)
    host = dict.fromkeys(range(6), 0)
    frames: dict[tuple[int, int], tuple[int, int]] = {}
    for wanted in calls:
        page = data.draw(st.integers(0, 5))
        host[page] += 1
        slots.rewritten(page)
        selected = np.array([[wanted, wanted[::-1]]])
        found, copies = slots.place(selected)
        for copy in copies:
            assert first <= copy.frame < first + 3
            frames[copy.head, copy.frame] = (copy.page, host[copy.page])
        for head in range(heads):
            for number, frame in zip(selected[0, head], found[0, head], strict=True):
                assert frames[head, int(frame)] == (number, host[int(number)])
    assert slots.hits + slots.misses == 2 * heads * len(calls)
