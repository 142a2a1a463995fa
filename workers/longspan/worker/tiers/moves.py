"""What the scheduler asks of the tiers below the page pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.label import Label
from longspan.worker.tiers.page_tensors import Lying

Ticket = NewType("Ticket", int)


@dataclass(frozen=True, slots=True)
class Moved:
    """A move that has ended.

    Attributes:
        whole: False where a part was not there any more, or damaged, or the disk failed.
    """

    ticket: Ticket
    whole: bool


class Tiers(Protocol):
    """Moves parts of pages in threads of its own; all methods return at once.

    Whoever asks for a move holds the page until the move is in ``finished`` or cancelled.
    """

    @property
    def load_s(self) -> float:
        """Seconds that loading a whole page takes: as measured, and what the one that is being
        loaded has taken so far, if that is more."""
        ...

    def knows(self, key: PageKey, group: int) -> bool:
        """True where a part can be loaded, as far as is known."""
        ...

    def touch(self, key: PageKey, group: int) -> None:
        """A part was found in the pool: what the tiers keep of it is in use."""
        ...

    def load(self, key: PageKey, groups: Sequence[int], lying: Lying) -> Ticket:
        """Bring parts of a page to where it lies; the load asked for last starts last."""
        ...

    def store(
        self, key: PageKey, groups: Sequence[int], lying: Lying, label: Label, cost_s: float
    ) -> Ticket:
        """Copy parts of a page down; it took ``cost_s`` to compute."""
        ...

    def cancel(self, ticket: Ticket) -> bool:
        """Take a load back; False where it has begun, and will be in ``finished``."""
        ...

    def finished(self) -> list[Moved]:
        """Moves that have ended since the last call."""
        ...
