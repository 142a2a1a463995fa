"""Which pages of the host lie in a kv head's slots on the device. Pure.

    FREE ──FILL──▶ HELD        a page is copied into the slot, for the call that runs
    KEPT ──USE──▶ HELD         the slot has the page already
    HELD ──USE──▶ HELD
    HELD ──LEAVE──▶ KEPT       the call is over; the page stays until the slot is needed
    KEPT ──EVICT──▶ FREE       for another page; the one used longest ago goes first
    KEPT ──FORGET──▶ FREE      what the host has under the page's number is another page

``MOVES`` is the whole truth; a move that is not in it raises ``IllegalMove``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum, auto


class IllegalMove(Exception):
    """The caller's code asked for a move that the state does not allow."""


class SlotState(Enum):
    """What a slot is good for."""

    FREE = auto()
    HELD = auto()
    KEPT = auto()


class Move(Enum):
    """What can happen to a slot."""

    FILL = auto()
    USE = auto()
    LEAVE = auto()
    EVICT = auto()
    FORGET = auto()


MOVES: Mapping[tuple[SlotState, Move], SlotState] = {
    (SlotState.FREE, Move.FILL): SlotState.HELD,
    (SlotState.HELD, Move.USE): SlotState.HELD,
    (SlotState.HELD, Move.LEAVE): SlotState.KEPT,
    (SlotState.KEPT, Move.USE): SlotState.HELD,
    (SlotState.KEPT, Move.EVICT): SlotState.FREE,
    (SlotState.KEPT, Move.FORGET): SlotState.FREE,
}


class SlotCache:
    """The slots of one kv head in one layer.

    Args:
        slots: there are; their numbers are below it.
    """

    def __init__(self, slots: int) -> None:
        self.states = [SlotState.FREE] * slots
        self._slot_of: OrderedDict[int, int] = OrderedDict()
        self._free = list(range(slots))[::-1]
        self._held: set[int] = set()

    def __len__(self) -> int:
        """Pages that lie in a slot."""
        return len(self._slot_of)

    def slots_of(self, pages: Iterable[int]) -> list[int]:
        """Where pages lie that were held before; in their order, which may repeat them."""
        return [self._slot_of[page] for page in pages]

    def hold(self, pages: Collection[int]) -> Sequence[tuple[int, int]]:
        """Hold pages until ``leave``; at most as many as there are slots, the held included.

        Returns:
            Those that have to be copied, each once, with their slots.
        """
        missing = []
        for page in dict.fromkeys(pages):
            slot = self._slot_of.get(page)
            if slot is None:
                missing.append(page)
            else:
                self._move(slot, Move.USE)
                self._held.add(slot)
                self._slot_of.move_to_end(page)
        return [(page, self._fill(page)) for page in missing]

    def leave(self) -> None:
        """What is held was read."""
        for slot in self._held:
            self._move(slot, Move.LEAVE)
        self._held.clear()

    def forget(self, pages: Iterable[int]) -> None:
        """These pages are no longer what they were when they were copied; none is held."""
        for page in pages:
            if page in self._slot_of:
                self._vacate(page, Move.FORGET)

    def _fill(self, page: int) -> int:
        if not self._free:
            # What is held was moved to the end: the first is held only where all are.
            self._vacate(next(iter(self._slot_of)), Move.EVICT)
        slot = self._free.pop()
        self._move(slot, Move.FILL)
        self._held.add(slot)
        self._slot_of[page] = slot
        return slot

    def _vacate(self, page: int, move: Move) -> None:
        slot = self._slot_of[page]
        self._move(slot, move)
        del self._slot_of[page]
        self._free.append(slot)

    def _move(self, slot: int, move: Move) -> None:
        state = MOVES.get((self.states[slot], move))
        if state is None:
            raise IllegalMove(f"{move.name} in {self.states[slot].name}")
        self.states[slot] = state
