"""Sends pages that became full down to the tiers below: pure policy, a few at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from longspan.worker.attention.retention import Retention
from longspan.worker.generation.sequence import Sequence
from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.label import Label
from longspan.worker.kv.pages import PageId, PageTable
from longspan.worker.tiers.moves import Ticket, Tiers
from longspan.worker.tiers.page_tensors import Lying

CHECKPOINT_PAGES = 32
"""Where layers forget pages, what is seen at every so many pages is stored: a sequence that lost
its pages goes on from there. What nothing forgets is stored page by page."""

MOST_MOVING = 4
"""Pages held at once because they are being copied."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    groups: frozenset[int]
    label: Label
    page_s: float


@dataclass(frozen=True, slots=True)
class _Held:
    page: PageId
    groups: tuple[int, ...]


class Saver:
    """Keeps a line of pages to store; those that are evicted before their turn are passed over."""

    def __init__(self, table: PageTable, tiers: Tiers) -> None:
        self._table = table
        self._tiers = tiers
        self._line: dict[PageKey, _Waiting] = {}
        self._moving: dict[Ticket, _Held] = {}

    @property
    def idle(self) -> bool:
        """True where nothing is left to store."""
        return not self._line and not self._moving

    def completed(self, sequence: Sequence, page: int, page_s: float) -> None:
        """A page of a sequence has become full; it took ``page_s`` seconds to compute."""
        groups = [
            group
            for group, retention in enumerate(sequence.spec.retentions)
            if page < sequence.prefix_pages or _is_checkpoint(retention, page)
        ]
        self._add(sequence, page, groups, page_s)

    def ended(self, sequence: Sequence, page_s: float) -> None:
        """A sequence ends: what it sees at its end is stored."""
        for group, retention in enumerate(sequence.spec.retentions):
            if not retention.drops:
                continue
            first = retention.droppable(sequence.page).stop
            for page in range(first, sequence.page):
                self._add(sequence, page, [group], page_s)

    def rename(self, old: Label, subject: str) -> None:
        """What belongs where ``old`` does has another subject from now on."""
        for key, waiting in self._line.items():
            if waiting.label.belongs(old.tenant, old.subject):
                label = replace(waiting.label, subject=subject)
                self._line[key] = replace(waiting, label=label)

    def forget(self, tenant: str, subject: str) -> None:
        """What waits of a tenant's subject is not stored; empty names mean all."""
        gone = [k for k, w in self._line.items() if w.label.belongs(tenant, subject)]
        for key in gone:
            del self._line[key]

    def pump(self) -> None:
        """Start as many copies as may run at once."""
        while self._line and len(self._moving) < MOST_MOVING:
            key = next(iter(self._line))
            line = self._line.pop(key)
            wanted = tuple(g for g in sorted(line.groups) if not self._tiers.knows(key, g))
            page = self._table.hold(key, wanted) if wanted else None
            if page is not None:
                lying = Lying(page, self._table.frames[page].copy())
                ticket = self._tiers.store(key, wanted, lying, line.label, line.page_s)
                self._moving[ticket] = _Held(page, wanted)

    def moved(self, ticket: Ticket) -> bool:
        """A move has ended; False where it was none of ours."""
        held = self._moving.pop(ticket, None)
        if held is not None:
            self._table.release([held.page], held.groups)
        return held is not None

    def holds(self) -> list[tuple[PageId, tuple[int, ...]]]:
        """Pages that are held, and which groups of each."""
        return [(held.page, held.groups) for held in self._moving.values()]

    def _add(self, sequence: Sequence, page: int, groups: list[int], page_s: float) -> None:
        if not groups:
            return
        key = sequence.key(page)
        before = self._line[key].groups if key in self._line else frozenset()
        self._line[key] = _Waiting(before | {*groups}, sequence.label(page), page_s)
        while len(self._line) > self._table.numbers:
            self._line.pop(next(iter(self._line)))


def _is_checkpoint(retention: Retention, page: int) -> bool:
    if retention.window_pages is None:
        return True
    return CHECKPOINT_PAGES - 1 - page % CHECKPOINT_PAGES < retention.window_pages
