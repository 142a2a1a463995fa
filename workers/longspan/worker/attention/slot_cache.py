"""Which pages of the host lie in the slots of a layer's kv heads on the device. Pure.

    FREE ──FILL──▶ HELD        a page is copied into the slot, for the call that runs
    KEPT ──USE──▶ HELD         the slot has the page already
    HELD ──USE──▶ HELD
    HELD ──LEAVE──▶ KEPT       the call is over; the page stays until the slot is needed
    KEPT ──EVICT──▶ FREE       for another page; the one held longest ago goes first
    KEPT ──FORGET──▶ FREE      what the host has under the page's number is another page

``MOVES`` is the whole truth; a move that is not in it raises ``IllegalMove``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

NOWHERE = -1
"""Instead of a slot, a page or a state."""


class IllegalMove(Exception):
    """The caller's code asked for a move that the state does not allow."""


class SlotState(IntEnum):
    """What a slot is good for."""

    FREE = 0
    HELD = 1
    KEPT = 2


class Move(IntEnum):
    """What can happen to a slot."""

    FILL = 0
    USE = 1
    LEAVE = 2
    EVICT = 3
    FORGET = 4


MOVES: Mapping[tuple[SlotState, Move], SlotState] = {
    (SlotState.FREE, Move.FILL): SlotState.HELD,
    (SlotState.HELD, Move.USE): SlotState.HELD,
    (SlotState.HELD, Move.LEAVE): SlotState.KEPT,
    (SlotState.KEPT, Move.USE): SlotState.HELD,
    (SlotState.KEPT, Move.EVICT): SlotState.FREE,
    (SlotState.KEPT, Move.FORGET): SlotState.FREE,
}


class Filled(NamedTuple):
    """Slots whose pages have to be copied: int64 [copies] each."""

    heads: Integers
    pages: Integers
    slots: Integers


class SlotCache:
    """The slots of all kv heads of one layer, each head's for itself.

    It is asked in every layer of every step, so it takes all heads and rows at once.

    Args:
        heads: there are.
        slots: of each; their numbers are below it.
        pages: numbers that pages may have.

    Attributes:
        states: int64 [heads, slots], a ``SlotState`` each.
    """

    def __init__(self, heads: int, slots: int, pages: int) -> None:
        self.states = np.full((heads, slots), SlotState.FREE, np.int64)
        self._slot_of = np.full((heads, pages), NOWHERE, np.int64)
        self._page_in = np.full((heads, slots), NOWHERE, np.int64)
        self._held_at = np.zeros((heads, slots), np.int64)
        self._calls = 0
        self._moves = np.full((len(SlotState), len(Move)), NOWHERE, np.int64)
        for (state, move), after in MOVES.items():
            self._moves[state, move] = after

    def slots_of(self, pages: Integers) -> Integers:
        """Where pages lie, ``NOWHERE`` if they do not: [rows, heads, pages], as ``pages``."""
        found: Integers = self._slot_of[self._heads, pages]
        return found

    def hold(self, pages: Integers) -> Filled:
        """Hold pages until ``leave``; at most as many as each head has slots, the held included.

        ``pages`` is int64 [rows, heads, pages], in which numbers may repeat.

        Returns:
            Those that have to be copied, each once, with their slots.
        """
        self._calls += 1
        slots = self.slots_of(pages)
        lying = slots != NOWHERE
        heads = np.broadcast_to(self._heads, pages.shape)
        self._hold(heads[lying], slots[lying], Move.USE)
        if lying.all():
            return Filled(*np.empty((3, 0), np.int64))
        return self._fill(heads[~lying], pages[~lying])

    def leave(self) -> None:
        """What is held was read."""
        heads, slots = np.nonzero(self.states == SlotState.HELD)
        self._move(heads, slots, Move.LEAVE)

    def forget(self, pages: Integers) -> None:
        """These pages are no longer what they were when they were copied; none is held."""
        slots = self._slot_of[:, pages]
        heads, places = np.nonzero(slots != NOWHERE)
        self._vacate(heads, slots[heads, places], Move.FORGET)

    @property
    def _heads(self) -> Integers:
        return np.arange(len(self.states))[None, :, None]

    def _fill(self, heads: Integers, pages: Integers) -> Filled:
        width = self._slot_of.shape[1]
        heads, pages = np.divmod(np.unique(heads * width + pages), width)
        # Each head's first copy takes the best of its slots, its second the next one.
        turn = np.arange(len(heads)) - np.searchsorted(heads, heads)
        if turn.max() >= self.states.shape[1]:
            raise IllegalMove("FILL in HELD: more pages than slots")
        slots = self._best_slots()[heads, turn]
        taken = self.states[heads, slots] != SlotState.FREE
        self._vacate(heads[taken], slots[taken], Move.EVICT)
        self._hold(heads, slots, Move.FILL)
        self._page_in[heads, slots] = pages
        self._slot_of[heads, pages] = slots
        return Filled(heads, pages, slots)

    def _best_slots(self) -> Integers:
        """The slots of each head: free ones, then by when they were held; the held at the end."""
        order = self._held_at.copy()
        order[self.states == SlotState.FREE] = NOWHERE
        order[self.states == SlotState.HELD] = self._calls + 1
        return np.argsort(order, axis=1, kind="stable")

    def _hold(self, heads: Integers, slots: Integers, move: Move) -> None:
        self._move(heads, slots, move)
        self._held_at[heads, slots] = self._calls

    def _vacate(self, heads: Integers, slots: Integers, move: Move) -> None:
        self._move(heads, slots, move)
        self._slot_of[heads, self._page_in[heads, slots]] = NOWHERE

    def _move(self, heads: Integers, slots: Integers, move: Move) -> None:
        before = self.states[heads, slots]
        after = self._moves[before, move]
        if (after == NOWHERE).any():
            state = SlotState(int(before[after == NOWHERE][0]))
            raise IllegalMove(f"{move.name} in {state.name}")
        self.states[heads, slots] = after
