"""How the prefills of one step share what decoding leaves of its budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Run
from math import inf
from typing import Protocol

from longspan.worker.generation.deficit import Credit, DeficitRing
from longspan.worker.generation.draft import Draft
from longspan.worker.generation.limits import SHORT_BURST, SHORT_SHARE
from longspan.worker.generation.plan import SequenceId
from longspan.worker.generation.sequence import Sequence


class Grant(Protocol):
    """Gives a sequence at most so many tokens of the step; says how many it got."""

    def __call__(self, sequence: Sequence, tokens: int, *, whole_pages: bool) -> int: ...


class PrefillShares:
    """Short sequences first, as far as their credit goes; then long ones by turns.

    Short ones (``SHORT_TOKENS``) are served one after the other by rank: by age, where each
    level of priority is a head start of ``HEAD_START_S`` seconds. While a long one waits too,
    they live on a credit of ``SHORT_SHARE`` of all prefill work, saved up to ``SHORT_BURST``;
    what long ones leave is theirs for nothing. Long ones share by deficit round robin over
    tokens, weighted by priority. Before all, a page that one sequence is within and others
    need is completed: less than a page for each text.

    Starvation bounds. Of any work ``W`` that is done while a short sequence waits, short ones
    get at least ``SHORT_SHARE * W`` less one step, and only those go before it that arrived
    earlier, or later by at most ``HEAD_START_S`` times the levels of priority between them.
    Of any work ``W`` that is done while a long one waits, long ones get at least
    ``(1 - SHORT_SHARE) * W - SHORT_BURST``. Among these, a long sequence of weight ``w`` with
    ``R`` tokens to read needs at most ``k = ⌈R / wQ⌉ + 1`` turns of the quantum ``Q``, and
    another one of weight ``v`` gets at most ``(k + 2) vQ`` tokens before they are over,
    whatever arrives. Waiting turns into rank and turns: no priority has to be raised.
    """

    def __init__(self, quantum_tokens: int) -> None:
        self._ring = DeficitRing(quantum_tokens)
        self._credit = Credit(SHORT_SHARE, SHORT_BURST)

    def serve(self, waiting: Run[Sequence], draft: Draft, grant: Grant) -> None:
        """Give out what is left of a step."""
        short = in_rank(sequence for sequence in waiting if sequence.is_short)
        long = {sequence.sequence_id: sequence for sequence in waiting if not sequence.is_short}
        self._ring.keep({member: sequence.weight for member, sequence in long.items()})
        before = draft.work
        for leader in leaders(waiting):
            tokens = -leader.computed % leader.page_tokens
            granted = grant(leader, tokens, whole_pages=False)
            if not leader.is_short:
                self._charge(leader.sequence_id, granted)
        started = draft.work
        if long:
            self._serve_short(short, draft, self._credit.balance, grant)
        spent = draft.work - started
        self._serve_long(long, draft, grant)
        self._serve_short(short, draft, inf, grant)
        self._credit.settle(done=draft.work - before, spent=spent)

    def order(self, waiting: Run[Sequence]) -> tuple[SequenceId, ...]:
        """Waiting sequences as they would be served if nothing else came."""
        turns = {member: place for place, member in enumerate(self._ring.order)}
        last = len(turns)
        short = [sequence for sequence in waiting if sequence.is_short]
        long = [sequence for sequence in waiting if not sequence.is_short]
        long.sort(key=lambda sequence: turns.get(sequence.sequence_id, last))
        return tuple(sequence.sequence_id for sequence in [*in_rank(short), *long])

    def _serve_short(
        self, short: Iterable[Sequence], draft: Draft, work: float, grant: Grant
    ) -> None:
        limit = draft.work + work
        for sequence in short:
            if draft.left <= 0 or draft.work >= limit:
                return
            tokens = draft.left
            if work < inf:
                tokens = max(draft.affordable(sequence, limit - draft.work), 1)
            grant(sequence, tokens, whole_pages=False)

    def _serve_long(self, long: Mapping[SequenceId, Sequence], draft: Draft, grant: Grant) -> None:
        waiting = dict(long)
        while waiting and draft.left > 0:
            member = self._ring.next(waiting)
            allowed = min(self._ring.deficit(member), draft.left)
            granted = grant(waiting[member], allowed, whole_pages=len(waiting) > 1)
            self._charge(member, granted)
            if granted == 0:
                del waiting[member]
            if granted < allowed:
                self._ring.pass_on(member)

    def _charge(self, member: SequenceId, tokens: int) -> None:
        self._ring.spend(member, tokens)
        if self._ring.deficit(member) <= 0:
            self._ring.pass_on(member)


def leaders(waiting: Iterable[Sequence]) -> list[Sequence]:
    """Those within a page that others need too: they complete it first, for all."""
    standing = [sequence for sequence in waiting if sequence.page_borrowable(sequence.page)]
    needed = {sequence.key(sequence.page) for sequence in standing if not sequence.is_within_page}
    within = [sequence for sequence in standing if sequence.is_within_page]
    first = {sequence.key(sequence.page): sequence for sequence in reversed(within)}
    return [sequence for key, sequence in first.items() if key in needed]


def in_rank(sequences: Iterable[Sequence]) -> list[Sequence]:
    """The one that goes first, first."""
    return sorted(sequences, key=lambda sequence: sequence.rank)
