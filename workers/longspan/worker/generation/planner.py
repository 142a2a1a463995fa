"""What goes into one step: decode rows first, then prefills; preemption where pages run out."""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from longspan.worker.generation.draft import Draft
from longspan.worker.generation.limits import (
    ALONE_FACTOR,
    SHARED_FACTOR,
    SHARED_S,
    SHARED_WORK,
    StepLimits,
)
from longspan.worker.generation.memory import Memory, victim
from longspan.worker.generation.plan import SequenceId
from longspan.worker.generation.prefills import PrefillShares, in_rank
from longspan.worker.generation.sequence import Sequence
from longspan.worker.generation.states import SequenceState

QUANTA_PER_STEP = 8
"""Turns that fill a step; more make finer shares and more chunks."""


class Planner:
    """Plans one step at a time.

    Where pages run out, a sequence takes them from one that waits for its client, else from
    those behind it in rank, the last one first; an evicted sequence waits until as much is
    free as it lost. So the first in rank always goes on, and becomes the last one to hold
    anything: what it cannot do then, it can never do. A sequence evicted while it waited for
    its client lines up again as if it had just arrived, or it would take the pages back; and
    until that client goes on it only takes pages that are free.
    """

    def __init__(self, limits: StepLimits, memory: Memory) -> None:
        self._limits = limits
        self._memory = memory
        pages = limits.budget_tokens // QUANTA_PER_STEP // memory.page_tokens
        self._shares = PrefillShares(max(pages, 1) * memory.page_tokens)
        self._step = 0
        self._shared_until = -inf

    def borrow(self, sequences: Collection[Sequence]) -> None:
        """Let every sequence that may go on take what the cache has for it."""
        waiting = [sequence for sequence in sequences if sequence.pending > 0]
        free = self._memory.free
        ranked = in_rank(waiting)
        first = next((sequence for sequence in ranked if not sequence.parked), None)
        for sequence in ranked:
            resumes = sequence is first or sequence.resume_pages <= free
            if sequence.resume_pages and resumes:
                free -= sequence.resume_pages
                sequence.resume_pages = 0
            if sequence.resume_pages == 0:
                self._memory.borrow(sequence)

    def plan(self, sequences: Collection[Sequence], now: float) -> Draft:
        """Fill a step."""
        self._step += 1
        waiting = self._waiting(sequences)
        draft = Draft(self._limits, self._work_limit(sequences, now))
        self._decode(draft, sequences, bool(waiting), now)

        def grant(sequence: Sequence, tokens: int, *, whole_pages: bool) -> int:
            return self._grant(draft, sequence, tokens, whole_pages, sequences, now)

        self._shares.serve(waiting, draft, grant)
        return draft

    def order(self, sequences: Collection[Sequence]) -> tuple[SequenceId, ...]:
        """Sequences that wait for their prefill, as they would be served."""
        return self._shares.order(self._waiting(sequences))

    def _work_limit(self, sequences: Collection[Sequence], now: float) -> float:
        """Deep in a long text a full budget would make a step that others wait for too long."""
        others = {s.state is SequenceState.DECODING or s.is_short for s in sequences if s.pending}
        if len(others) == 2:
            self._shared_until = now + SHARED_S
        if now < self._shared_until:
            return min(SHARED_FACTOR * self._limits.budget_tokens, SHARED_WORK)
        return ALONE_FACTOR * self._limits.budget_tokens

    def _waiting(self, sequences: Collection[Sequence]) -> list[Sequence]:
        return [
            sequence
            for sequence in sequences
            if sequence.state is not SequenceState.DECODING
            and sequence.pending > 0
            and not sequence.is_blocked
            and sequence.resume_pages == 0
        ]

    def _decode(
        self, draft: Draft, sequences: Collection[Sequence], prefills: bool, now: float
    ) -> None:
        """Give one token to as many as fit, those first that were served longest ago.

        One row stays for prefills, or decoding would lock them out.
        """
        rows = min(self._limits.sequences, self._limits.budget_tokens)
        decoding = [s for s in sequences if s.state is SequenceState.DECODING]
        decoding.sort(key=lambda sequence: sequence.last_step)
        for sequence in decoding[: max(rows - prefills, 1)]:
            if sequence.sequence_id in draft.barred:
                continue
            end = sequence.computed + 1
            if self._make_room(draft, sequence, end, sequences, now) == end:
                draft.extend(sequence, end)
                sequence.last_step = self._step
            elif sequence.sequence_id not in draft.barred:
                self._evict(draft, sequence, now)

    def _grant(
        self,
        draft: Draft,
        sequence: Sequence,
        tokens: int,
        whole_pages: bool,
        sequences: Collection[Sequence],
        now: float,
    ) -> int:
        room = min(tokens, draft.room(sequence))
        if room <= 0:
            return 0
        start = draft.end(sequence)
        end = sequence.cut(start, start + room)
        if end == start and draft.first_prefill:
            # However little is left: what cannot be cut would never be computed.
            end = sequence.next_cut(start)
        end = draft.end_of_own(sequence, end)
        aligned = end - end % self._memory.page_tokens
        if whole_pages and start < aligned and end < sequence.target:
            end = aligned
        end = self._make_room(draft, sequence, end, sequences, now)
        if end <= start:
            return 0
        draft.extend(sequence, end)
        return end - start

    def _make_room(
        self,
        draft: Draft,
        sequence: Sequence,
        end: int,
        sequences: Collection[Sequence],
        now: float,
    ) -> int:
        """Hold pages for the positions below ``end``; return how far they reach."""
        reach = self._memory.reach(sequence)
        if sequence.pages_for(sequence.computed + 1 if sequence.drops else end) > reach:
            draft.bar(sequence)
            draft.hopeless.append(sequence)
            return sequence.computed
        end = min(end, reach * self._memory.page_tokens)
        lacking = sequence.pages_for(end) - len(sequence.block_table)
        while self._memory.free < lacking:
            other = victim(sequence, sequences)
            if other is None:
                break
            self._evict(draft, other, now)
        self._memory.hold(sequence, min(lacking, self._memory.free))
        if sequence.parked and len(sequence.block_table) <= sequence.page:
            # What it reads ahead does not fit beside the others: it would only hold pages.
            self._evict(draft, sequence, now)
            return sequence.computed
        return min(end, len(sequence.block_table) * self._memory.page_tokens)

    def _evict(self, draft: Draft, sequence: Sequence, now: float) -> None:
        if sequence.pending == 0:
            sequence.arrive(now)
        draft.bar(sequence)
        self._memory.evict(sequence)
