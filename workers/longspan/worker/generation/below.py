"""The pool's side of the tiers below it: what goes down, what comes back, and what that costs."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from itertools import chain

from longspan.worker.generation.memory import Memory
from longspan.worker.generation.plan import SequenceId, StepPlan
from longspan.worker.generation.restorer import Restorer
from longspan.worker.generation.saver import Saver
from longspan.worker.generation.sequence import Sequence
from longspan.worker.generation.work import Work
from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.label import Label
from longspan.worker.kv.pages import PageId, PageTable
from longspan.worker.tiers.costs import Rate
from longspan.worker.tiers.moves import Tiers

DRAIN_STEP_S = 0.002

LEAST_MEASURED = 128
"""Tokens of a step that tells what computing costs: the time of a small one is not its tokens'."""


class Below:
    """One for a pool; it outlives the streams whose sequences it serves.

    Args:
        table: the pool's.
        page_tokens: of a page.
        tiers: where pages go.
        work: what chunks cost.
        token_s: seconds of a token at the beginning of a text, until steps tell.
    """

    def __init__(
        self, table: PageTable, page_tokens: int, tiers: Tiers, work: Work, token_s: float
    ) -> None:
        memory = Memory(table, page_tokens)
        self._tiers = tiers
        self._work = work
        self._page_tokens = page_tokens
        self._unit = Rate(token_s)
        self._saver = Saver(table, tiers)
        self._restorer = Restorer(table, memory, tiers, self._page_s)

    @property
    def idle(self) -> bool:
        """True where nothing is left to store."""
        return self._saver.idle

    @property
    def restoring(self) -> Mapping[SequenceId, int]:
        """How many pages are on their way, by sequence."""
        return self._restorer.waiting

    def collect(self) -> None:
        """Take in what has been moved, and move on."""
        for moved in self._tiers.finished():
            if not self._saver.moved(moved.ticket):
                self._restorer.moved(moved.ticket, whole=moved.whole)
        self._saver.pump()

    def bring(self, sequences: Collection[Sequence]) -> None:
        """Look for what sequences need next; they have borrowed what the pool has."""
        for sequence in sequences:
            if sequence.resume_pages:  # it was evicted
                self._restorer.drop(sequence)
                continue
            self._restorer.settle(sequence)
            if sequence.pending > 0:
                self._restorer.look(sequence)

    def rename(self, old: Label, subject: str) -> None:
        """What belongs where ``old`` does has another subject from now on."""
        self._saver.rename(old, subject)

    def forget(self, tenant: str, subject: str) -> None:
        """What waits to be stored of a tenant's subject is not stored; empty names mean all."""
        self._saver.forget(tenant, subject)

    def knows(self, key: PageKey, group: int) -> bool:
        """True where a part of a page lies below, as far as is known without I/O."""
        return self._tiers.knows(key, group)

    def completed(self, sequence: Sequence, first: int) -> None:
        """The pages from ``first`` to where the sequence stands have become full."""
        for page in range(first, sequence.page):
            self._saver.completed(sequence, page, self._page_s(sequence, page))
        self._saver.pump()

    def ended(self, sequence: Sequence) -> None:
        """A sequence ends; it holds its pages still."""
        self._restorer.drop(sequence)
        for page in range(sequence.borrowed // self._page_tokens):
            self._tiers.touch(sequence.key(page), 0)
        self._saver.ended(sequence, self._page_s(sequence, sequence.page))
        self._saver.pump()

    def took(self, plan: StepPlan, seconds: float) -> None:
        """A step was computed in so many seconds."""
        if plan.tokens >= LEAST_MEASURED:
            work = sum(self._work.of(chunk.start, len(chunk.tokens)) for chunk in plan.chunks)
            self._unit.observe(work, seconds)

    def drain(self, seconds: float) -> None:
        """Go on storing for so long, or until nothing is left; no stream is open any more."""
        until = time.monotonic() + seconds
        while not self.idle and time.monotonic() < until:
            self.collect()
            time.sleep(DRAIN_STEP_S)

    def holds(self) -> list[tuple[PageId, tuple[int, ...]]]:
        """Pages that are held because they move, and which groups of each."""
        return list(chain(self._saver.holds(), self._restorer.holds()))

    def _page_s(self, sequence: Sequence, page: int) -> float:
        """Seconds that computing one of a sequence's pages takes."""
        start = sequence.depth(page * self._page_tokens)
        return self._unit.seconds * self._work.of(start, self._page_tokens)
