"""What pages take, and what there is of it: frames and numbers run out apart. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Room:
    """For parts of pages.

    Attributes:
        frames: that they lie in; a page's parts of some groups of layers take fewer than all.
        numbers: of pages, one each, whatever of the page is there.
    """

    frames: int
    numbers: int

    def __add__(self, other: Room) -> Room:
        """Both."""
        return Room(self.frames + other.frames, self.numbers + other.numbers)

    def without(self, other: Room) -> Room:
        """What is left of it; nothing where the other is more."""
        return Room(max(self.frames - other.frames, 0), max(self.numbers - other.numbers, 0))

    def holds(self, other: Room) -> bool:
        """True where the other fits into it."""
        return other.frames <= self.frames and other.numbers <= self.numbers

    def first(self, takes: Iterable[Room]) -> int:
        """How many of them, from the first one on, fit into it together."""
        return sum(self.holds(taken) for taken in accumulate(takes))
