"""Tiers below a toy model's pages: moves end when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.label import Label
from longspan.worker.tiers.moves import Moved, Ticket
from longspan.worker.tiers.page_tensors import Lying
from tests.worker.scheduling import ToyModel

Cells = dict[tuple[int, int], int]


class ToyTiers:
    """Keeps the cells of frames by key and group.

    Attributes:
        kept: everything that was stored.
        lost: parts that ``knows`` knows and ``load`` does not find.
        loads, stores: moves that have run.
        touched: parts that were found in the pool.
        begun: moves that ``work`` passes over, and which cannot be taken back.
        load_s: see ``Tiers``.
    """

    def __init__(self, model: ToyModel, sizes: Sequence[int] = (1,), load_s: float = 0.0) -> None:
        self._model = model
        self._columns = [
            [column for column, owner in enumerate(model.groups) if owner == group]
            for group in range(len(sizes))
        ]
        self.kept: dict[tuple[PageKey, int], list[dict[int, int]]] = {}
        self.lost: set[tuple[PageKey, int]] = set()
        self.load_s = load_s
        self.loads = self.stores = 0
        self.begun: set[Ticket] = set()
        self.touched: list[tuple[PageKey, int]] = []
        self._waiting: dict[Ticket, Callable[[], bool]] = {}
        self._ended: list[Moved] = []
        self._tickets = 0

    @property
    def waiting(self) -> int:
        """Moves that have not run."""
        return len(self._waiting)

    def work(self, moves: int) -> None:
        """Run so many of the moves that wait, the oldest first."""
        for ticket in [one for one in self._waiting if one not in self.begun][:moves]:
            self._ended.append(Moved(ticket, self._waiting.pop(ticket)()))

    def knows(self, key: PageKey, group: int) -> bool:
        return (key, group) in self.kept

    def touch(self, key: PageKey, group: int) -> None:
        self.touched.append((key, group))

    def load(self, key: PageKey, groups: Sequence[int], lying: Lying) -> Ticket:
        return self._add(lambda: self._bring(key, groups, lying))

    def store(
        self, key: PageKey, groups: Sequence[int], lying: Lying, label: Label, cost_s: float
    ) -> Ticket:
        return self._add(lambda: self._keep(key, groups, lying))

    def cancel(self, ticket: Ticket) -> bool:
        return ticket not in self.begun and self._waiting.pop(ticket, None) is not None

    def hang(self) -> None:
        """The oldest move begins, and does not end."""
        self.begun.add(next(iter(self._waiting)))

    def finished(self) -> list[Moved]:
        ended, self._ended = self._ended, []
        return ended

    def _add(self, move: Callable[[], bool]) -> Ticket:
        self._tickets += 1
        ticket = Ticket(self._tickets)
        self._waiting[ticket] = move
        return ticket

    def _bring(self, key: PageKey, groups: Sequence[int], lying: Lying) -> bool:
        self.loads += 1
        if any((key, group) in self.lost for group in groups):
            return False
        for group in groups:
            for frame, cells in zip(self._frames(group, lying), self.kept[key, group], strict=True):
                for offset, token in cells.items():
                    self._model.cells[frame, offset] = token
        return True

    def _keep(self, key: PageKey, groups: Sequence[int], lying: Lying) -> bool:
        self.stores += 1
        for group in groups:
            self.kept[key, group] = [
                {o: self._model.cells[frame, o] for o in range(self._model.page_tokens)}
                for frame in self._frames(group, lying)
            ]
        return True

    def _frames(self, group: int, lying: Lying) -> list[int]:
        return [int(lying.frames[column]) for column in self._columns[group]]
