"""Brings pages back from the tiers below, ahead of the sequences that need them: pure policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from longspan.worker.generation.memory import Knows, Memory
from longspan.worker.generation.plan import SequenceId
from longspan.worker.generation.sequence import Sequence
from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.pages import PageId, PageTable
from longspan.worker.kv.room import Room
from longspan.worker.tiers.costs import pages_to_compute
from longspan.worker.tiers.moves import Ticket, Tiers
from longspan.worker.tiers.page_tensors import Lying

LEAST_FREE = 4
"""Pages that restoring leaves free for those who compute, the sequence among them."""

NEXT_FREE = 1
"""The same where layers forget. The sequence waits for all of it and needs a page to go on then. If
it computed instead, it would hold as much: so what could be read once can come back."""


@dataclass(frozen=True, slots=True)
class _Brought:
    """A page for a sequence: held while it is on its way, a cached one like any other then."""

    page: PageId
    groups: tuple[int, ...]
    key: PageKey
    index: int


@dataclass(slots=True, eq=False)
class _Load:
    """A page on its way, and who waits for it: what several need is loaded once."""

    brought: _Brought
    owners: list[Restoring]


@dataclass(slots=True, eq=False)
class Restoring:
    """Pages of a sequence that are on their way, or have come and wait for it.

    Attributes:
        sequence: theirs.
        waits: what is still being loaded.
        come: what is there.
    """

    sequence: Sequence
    waits: dict[Ticket, _Brought] = field(default_factory=dict)
    come: list[_Brought] = field(default_factory=list)

    @property
    def first(self) -> int | None:
        """The first page that the sequence need not compute."""
        pages = (*self.waits.values(), *self.come)
        return min((page.index for page in pages), default=None)


class Restorer:
    """One for all sequences of a pool. A page that comes lies in the pool as a cached one does, so
    that the sequence borrows it like any other; until then it is held.

    Where layers keep everything, the last pages are loaded first while the sequence computes the
    first ones, as many as make both end at once (``pages_to_compute``). Where layers forget, what
    is seen from the last stored place is loaded, or nothing.

    Nobody waits for a load that takes longer than computing its page: one that cannot be taken
    back, since it has begun, is left alone and keeps the page that it writes to until it ends.

    Args:
        table: the pool's.
        memory: over it.
        tiers: where pages come from.
        page_s: seconds that computing a page of a sequence takes.
    """

    def __init__(
        self,
        table: PageTable,
        memory: Memory,
        tiers: Tiers,
        page_s: Callable[[Sequence, int], float],
    ) -> None:
        self._table = table
        self._memory = memory
        self._tiers = tiers
        self._page_s = page_s
        self._loads: dict[Ticket, _Load] = {}
        self._tickets: dict[tuple[PageKey, tuple[int, ...]], Ticket] = {}
        self._left: dict[Ticket, _Brought] = {}
        self._sequences: dict[int, Restoring] = {}

    @property
    def waiting(self) -> Mapping[SequenceId, int]:
        """How many pages are on their way, by sequence."""
        waiting = ((one.sequence.sequence_id, len(one.waits)) for one in self._sequences.values())
        return {sequence_id: count for sequence_id, count in waiting if count}

    def look(self, sequence: Sequence) -> None:
        """Load what is known below of the pages that a sequence needs next, if that is quicker.

        It may go on, and has borrowed what the pool has.
        """
        restoring = self._sequences.get(sequence.serial)
        if restoring is None:
            restoring = self._begin(sequence)
        elif restoring.waits and sequence.drops:
            restoring = self._unless_late(sequence, restoring)
        elif restoring.waits and sequence.page == restoring.first:
            self._take_back(sequence, restoring)
        sequence.barrier = restoring.first if restoring is not None else None
        if restoring is not None and restoring.waits and sequence.drops:
            sequence.barrier = 0  # all of it must be there before anything goes on

    def settle(self, sequence: Sequence) -> None:
        """The sequence has borrowed what it could: what is behind it, or evicted, is no help."""
        restoring = self._sequences.get(sequence.serial)
        if restoring is None:
            return
        for ticket, brought in list(restoring.waits.items()):
            if brought.index < sequence.page:
                self._take(restoring, ticket)
        restoring.come = [
            page
            for page in restoring.come
            if page.index > sequence.page and self._table.knows(page.key, page.groups)
        ]
        if not restoring.waits and not restoring.come:
            self.drop(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Nothing more is brought for a sequence."""
        sequence.barrier = None
        restoring = self._sequences.pop(sequence.serial, None)
        if restoring is None:
            return
        for ticket in list(restoring.waits):
            self._cancel(restoring, ticket)

    def moved(self, ticket: Ticket, *, whole: bool) -> None:
        """A load has ended."""
        if ticket in self._left:
            left = self._left.pop(ticket)
            self._table.release([left.page], left.groups)
            return
        load = self._end(ticket)
        brought = load.brought
        for restoring in load.owners:
            del restoring.waits[ticket]
        if whole:
            label = load.owners[0].sequence.label(brought.index)
            self._table.register(brought.page, brought.key, label)
            for restoring in load.owners:
                restoring.come.append(brought)
        self._table.release([brought.page], brought.groups)

    def holds(self) -> list[tuple[PageId, tuple[int, ...]]]:
        """Pages that are held, and which groups of each."""
        pages = [*(load.brought for load in self._loads.values()), *self._left.values()]
        return [(page.page, page.groups) for page in pages]

    def _begin(self, sequence: Sequence) -> Restoring | None:
        seen = (sequence.page, len(sequence.tokens) // sequence.page_tokens)
        if sequence.looked == seen or not self._may_skip(sequence):
            return None
        sequence.looked = seen
        stop, needed = self._needed(sequence, self._is_somewhere)
        if not all(self._comes(sequence.key(index), groups) for index, groups in needed):
            # A page comes into a place of its own, where no part of it lies yet.
            stop, needed = self._needed(sequence, self._tiers.knows)
        chosen = self._chosen(sequence, stop, needed)
        if not any(not self._table.knows(sequence.key(i), groups) for i, groups in chosen):
            return None
        restoring = self._sequences[sequence.serial] = Restoring(sequence)
        # Those that are there are held meanwhile, or they would make room for the others.
        absent = [part for part in chosen if not self._hold(sequence, restoring, *part)]
        for index, groups in reversed(absent):
            self._fetch(sequence, restoring, index, groups)
        for page in restoring.come:
            self._table.release([page.page], page.groups)
        return restoring

    def _needed(
        self, sequence: Sequence, knows: Knows
    ) -> tuple[int, list[tuple[int, tuple[int, ...]]]]:
        """How far a sequence could come, and what it must have for that."""
        stop = self._memory.reachable(sequence, knows)
        return stop, self._memory.needed(sequence, stop)

    def _comes(self, key: PageKey, groups: tuple[int, ...]) -> bool:
        """False where some parts of a page lie in the pool only and others below only."""
        below = all(self._tiers.knows(key, group) for group in groups)
        return below or self._table.knows(key, groups)

    def _chosen(
        self, sequence: Sequence, stop: int, needed: list[tuple[int, tuple[int, ...]]]
    ) -> list[tuple[int, tuple[int, ...]]]:
        """What of the needed pages to load."""
        fitting = self._room(sequence).first(
            self._taking(sequence.key(index), groups) for index, groups in needed
        )
        if not sequence.drops:
            needed = needed[:fitting]
            costs = [self._page_s(sequence, index) for index, _ in needed]
            return needed[pages_to_compute(costs, self._tiers.load_s, len(self._loads)) :]
        computing = sum(self._page_s(sequence, page) for page in range(sequence.page, stop))
        to_load = sum(
            (sequence.key(index), groups) not in self._tickets for index, groups in needed
        )
        loading = self._tiers.load_s * (len(self._loads) + to_load)
        return needed if fitting == len(needed) and loading < computing else []

    def _room(self, sequence: Sequence) -> Room:
        """For what comes for a sequence."""
        free = NEXT_FREE if sequence.drops else LEAST_FREE
        return self._table.room.without(Room(free * self._table.page_frames, free))

    def _taking(self, key: PageKey, groups: tuple[int, ...]) -> Room:
        """Of that room; nothing where somebody is loading it already."""
        if (key, groups) in self._tickets:
            return Room(0, 0)
        return self._table.taking(key, groups)

    def _may_skip(self, sequence: Sequence) -> bool:
        """False where it has computed pages of its own and some layer would have to jump."""
        return not sequence.drops or sequence.page * sequence.page_tokens == sequence.borrowed

    def _hold(
        self, sequence: Sequence, restoring: Restoring, index: int, groups: tuple[int, ...]
    ) -> bool:
        key = sequence.key(index)
        page = self._table.hold(key, groups)
        if page is not None:
            restoring.come.append(_Brought(page, groups, key, index))
        return page is not None

    def _fetch(
        self, sequence: Sequence, restoring: Restoring, index: int, groups: tuple[int, ...]
    ) -> None:
        key = sequence.key(index)
        ticket = self._tickets.get((key, groups))
        if ticket is not None:
            self._loads[ticket].owners.append(restoring)
            restoring.waits[ticket] = self._loads[ticket].brought
            return
        (page,) = self._table.allocate(1)
        self._table.release([page], [g for g in self._table.groups if g not in groups])
        lying = Lying(page, self._table.frames[page].copy())
        ticket = self._tiers.load(key, groups, lying)
        brought = restoring.waits[ticket] = _Brought(page, groups, key, index)
        self._loads[ticket] = _Load(brought, [restoring])
        self._tickets[key, groups] = ticket

    def _take_back(self, sequence: Sequence, restoring: Restoring) -> None:
        """It stands before pages that have not come: compute some of them after all?"""
        line = sorted(restoring.waits.items(), key=lambda item: item[1].index)
        costs = [self._page_s(sequence, page.index) for _, page in line]
        count = pages_to_compute(costs, self._tiers.load_s, self._ahead(restoring))
        for ticket, _ in line[:count]:
            self._take(restoring, ticket)

    def _unless_late(self, sequence: Sequence, restoring: Restoring) -> Restoring | None:
        """None where computing all of it is quicker by now; it would wait for nothing then."""
        stop = 1 + max(page.index for page in (*restoring.waits.values(), *restoring.come))
        computing = sum(self._page_s(sequence, page) for page in range(sequence.page, stop))
        if self._tiers.load_s * (self._ahead(restoring) + len(restoring.waits)) <= computing:
            return restoring
        for ticket in list(restoring.waits):
            self._take(restoring, ticket)
        del self._sequences[sequence.serial]
        return None

    def _ahead(self, restoring: Restoring) -> int:
        """Loads of others that come before the first of these."""
        first = min(restoring.waits)
        return sum(ticket < first for ticket in self._loads)

    def _take(self, restoring: Restoring, ticket: Ticket) -> None:
        """This sequence does not wait for a load any more."""
        if not self._cancel(restoring, ticket):
            self._left[ticket] = self._end(ticket).brought
            del restoring.waits[ticket]

    def _cancel(self, restoring: Restoring, ticket: Ticket) -> bool:
        """False where nobody else waits for it and it has begun."""
        owners = self._loads[ticket].owners
        if len(owners) > 1:
            owners.remove(restoring)
            del restoring.waits[ticket]
            return True
        if not self._tiers.cancel(ticket):
            return False
        page = self._end(ticket).brought
        del restoring.waits[ticket]
        self._table.release([page.page], page.groups)
        return True

    def _end(self, ticket: Ticket) -> _Load:
        load = self._loads.pop(ticket)
        del self._tickets[load.brought.key, load.brought.groups]
        return load

    def _is_somewhere(self, key: PageKey, group: int) -> bool:
        return self._table.knows(key, (group,)) or self._tiers.knows(key, group)
