"""What was delivered of a stream that may be sent again from its beginning; pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from longspan.client._exceptions import AnswerChanged

Item = TypeVar("Item")


class DeliveredText:
    """A text that comes in pieces, cut differently each time.

    Args:
        name: what the text is, for the error.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._pieces: list[str] = []
        self._length = 0
        self._seen = 0
        self._unchecked = ""

    @property
    def text(self) -> str:
        """Everything delivered."""
        return "".join(self._pieces)

    @property
    def caught_up(self) -> bool:
        """Whether all that was delivered has come again."""
        return self._seen >= self._length

    def reopen(self) -> None:
        """The text comes from its beginning again."""
        self._unchecked = self.text
        self._seen = 0

    def admit(self, piece: str) -> str:
        """The end of a piece that is new; empty when nothing is.

        Raises:
            AnswerChanged: it differs from what was delivered.
        """
        known = self._unchecked[self._seen : self._seen + len(piece)]
        if not piece.startswith(known):
            raise AnswerChanged(f"the {self._name} changed after {self._seen} characters")
        self._seen += len(piece)
        fresh = piece[len(known) :]
        if fresh:
            self._pieces.append(fresh)
            self._length += len(fresh)
        return fresh


class DeliveredItems(Generic[Item]):
    """Things that come whole and in order.

    Args:
        name: what one of them is, for the error.
        identity: what must be the same the next time.
    """

    def __init__(self, name: str, identity: Callable[[Item], object]) -> None:
        self._name = name
        self._identity = identity
        self._items: list[Item] = []
        self._seen = 0

    @property
    def items(self) -> tuple[Item, ...]:
        """Everything delivered."""
        return tuple(self._items)

    @property
    def caught_up(self) -> bool:
        """Whether all that was delivered has come again."""
        return self._seen >= len(self._items)

    def reopen(self) -> None:
        """They come from the first again."""
        self._seen = 0

    def admit(self, item: Item) -> bool:
        """Whether the item is new.

        Raises:
            AnswerChanged: it differs from what was delivered.
        """
        self._seen += 1
        if self._seen > len(self._items):
            self._items.append(item)
            return True
        if self._identity(item) != self._identity(self._items[self._seen - 1]):
            raise AnswerChanged(f"{self._name} {self._seen} changed")
        return False
