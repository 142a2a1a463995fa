"""The slots of pages that lie on the host, against plain dicts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from longspan.worker.attention.host_slots import HostSlots
from longspan.worker.attention.slot_cache import MOVES, IllegalMove, Move, SlotCache, SlotState

HEADS, SLOTS, NUMBERS = 2, 4, 10
PAGES = st.lists(st.integers(0, NUMBERS - 1), min_size=SLOTS, max_size=SLOTS)


class Slots(RuleBasedStateMachine):
    """The naive model: for each head, when its pages were held last, and what each slot holds."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = SlotCache(HEADS, SLOTS, NUMBERS)
        self.held_at: list[dict[int, int]] = [{} for _ in range(HEADS)]
        self.held: list[set[int]] = [set() for _ in range(HEADS)]
        self.contents: dict[tuple[int, int], int] = {}
        self.calls = 0

    @rule(rows=st.lists(st.tuples(PAGES, PAGES), min_size=1, max_size=2), width=st.integers(1, 4))
    def hold(self, rows: list[tuple[list[int], list[int]]], width: int) -> None:
        wanted = np.array(rows)[:, :, :width]
        pages = [set(wanted[:, head].ravel().tolist()) for head in range(HEADS)]
        if any(len(h | p) > SLOTS for h, p in zip(self.held, pages, strict=True)):
            return
        self.calls += 1
        filled = self.cache.hold(wanted)
        copied = list(zip(*(part.tolist() for part in filled), strict=True))
        missing = [(h, p) for h in range(HEADS) for p in pages[h] if p not in self.held_at[h]]
        assert sorted((head, page) for head, page, _ in copied) == sorted(missing)
        for head in range(HEADS):
            self.held[head] |= pages[head]
        for head, page, slot in copied:
            gone = self.contents.pop((head, slot), None)
            if gone is not None:
                others = self.held_at[head].keys() - self.held[head]
                assert gone in others, "what is held stays"
                oldest = min(self.held_at[head][other] for other in others)
                assert self.held_at[head].pop(gone) == oldest, "the oldest makes room"
            self.contents[head, slot] = page
        for head in range(HEADS):
            self.held_at[head] |= dict.fromkeys(pages[head], self.calls)
        lying = self.cache.slots_of(wanted)
        for row, head, place in np.ndindex(*wanted.shape):
            slot = int(lying[row, head, place])
            assert self.contents[head, slot] == wanted[row, head, place]

    @rule()
    def leave(self) -> None:
        self.cache.leave()
        self.held = [set() for _ in range(HEADS)]

    @rule(pages=PAGES)
    def forget(self, pages: list[int]) -> None:
        gone = set(pages).difference(*self.held)
        self.cache.forget(np.array(sorted(gone), np.int64))
        for held_at in self.held_at:
            for page in gone & held_at.keys():
                del held_at[page]
        kept = self.contents.items()
        self.contents = {place: page for place, page in kept if page not in gone}

    @invariant()
    def states_say_what_slots_are_good_for(self) -> None:
        for head, slot in np.ndindex(HEADS, SLOTS):
            page = self.contents.get((head, slot))
            expected = SlotState.FREE
            if page is not None:
                expected = SlotState.HELD if page in self.held[head] else SlotState.KEPT
            assert self.cache.states[head, slot] == expected
        for head, held_at in enumerate(self.held_at):
            lying = [page for (one, _), page in self.contents.items() if one == head]
            assert sorted(lying) == sorted(held_at)


TestSlots = Slots.TestCase


def test_what_is_held_is_never_given_away() -> None:
    cache = SlotCache(1, 2, 9)
    cache.hold(np.array([[[1, 2]]]))
    with pytest.raises(IllegalMove, match="EVICT in HELD"):
        cache.hold(np.array([[[3]]]))
    with pytest.raises(IllegalMove, match="FORGET in HELD"):
        cache.forget(np.array([1]))
    with pytest.raises(IllegalMove, match="more pages than slots"):
        SlotCache(1, 2, 9).hold(np.array([[[1, 2, 3]]]))


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
