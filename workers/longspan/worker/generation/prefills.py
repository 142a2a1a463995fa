"""How the prefills of one step share what decoding leaves of its budget."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Run
from typing import Protocol

from longspan.worker.generation.deficit import Credit, DeficitRing
from longspan.worker.generation.limits import SHORT_BURST_TOKENS, SHORT_SHARE
from longspan.worker.generation.plan import SequenceId
from longspan.worker.generation.sequence import Sequence


class Grant(Protocol):
    """Gives a sequence at most so many tokens of the step; says how many it got."""

    def __call__(self, sequence: Sequence, tokens: int, *, whole_pages: bool) -> int: ...


class PrefillShares:
    """Short sequences first, as far as their credit goes; then long ones by turns.

    Short ones (``SHORT_TOKENS``) are served one after the other by rank: by age, where each
    level of priority is a head start of ``HEAD_START_S`` seconds. While a long one waits too,
    they live on a credit of ``SHORT_SHARE`` of all prefilled tokens, saved up to
    ``SHORT_BURST_TOKENS``; what long ones leave is theirs for nothing. Long ones share by
    deficit round robin, weighted by priority.

    Starvation bounds, in prefilled tokens. While a short sequence waits, short ones get all
    but ``(1 - SHORT_SHARE) T + budget`` of any ``T`` tokens, and only those go before it that
    arrived earlier, or at most ``HEAD_START_S`` times the levels of priority between them
    later. While a long one waits, long ones get at least ``(1 - SHORT_SHARE) T -
    SHORT_BURST_TOKENS`` of any ``T`` tokens. Of these, a long sequence of weight ``w`` with
    ``R`` tokens to read needs ``k = ⌈R / wQ⌉ + 1`` turns, and each other one of weight ``v``
    gets at most ``(k + 2) vQ`` tokens before they are over, whatever arrives; ``Q`` is the
    quantum. Waiting turns into rank or turns: no priority ever has to be raised.
    """

    def __init__(self, quantum_tokens: int) -> None:
        self._ring = DeficitRing(quantum_tokens)
        self._credit = Credit(SHORT_SHARE, SHORT_BURST_TOKENS)

    def serve(self, waiting: Run[Sequence], budget_tokens: int, grant: Grant) -> None:
        """Give out a step's budget."""
        short = in_rank(sequence for sequence in waiting if sequence.is_short)
        long = {sequence.sequence_id: sequence for sequence in waiting if not sequence.is_short}
        self._ring.keep({member: sequence.weight for member, sequence in long.items()})
        credit = self._credit.tokens if long else budget_tokens
        first = self._serve_short(short, min(credit, budget_tokens), grant)
        served = first + self._serve_long(long, budget_tokens - first, grant)
        served += self._serve_short(short, budget_tokens - served, grant)
        self._credit.settle(served=served, spent=first if long else 0)

    def order(self, waiting: Run[Sequence]) -> tuple[SequenceId, ...]:
        """Waiting sequences as they would be served if nothing else came."""
        turns = {member: place for place, member in enumerate(self._ring.order)}
        last = len(turns)
        short = [sequence for sequence in waiting if sequence.is_short]
        long = [sequence for sequence in waiting if not sequence.is_short]
        long.sort(key=lambda sequence: turns.get(sequence.sequence_id, last))
        return tuple(sequence.sequence_id for sequence in [*in_rank(short), *long])

    def _serve_short(self, short: Iterable[Sequence], tokens: int, grant: Grant) -> int:
        left = tokens
        for sequence in short:
            if left == 0:
                break
            left -= grant(sequence, left, whole_pages=False)
        return tokens - left

    def _serve_long(self, long: dict[SequenceId, Sequence], tokens: int, grant: Grant) -> int:
        left = tokens
        waiting = dict(long)
        while waiting and left > 0:
            member = self._ring.next(waiting)
            allowed = min(self._ring.deficit(member), left)
            granted = grant(waiting[member], allowed, whole_pages=len(waiting) > 1)
            left -= granted
            self._ring.spend(member, granted)
            if granted == 0:
                del waiting[member]
            if granted < allowed or self._ring.deficit(member) == 0:
                self._ring.pass_on(member)
        return tokens - left


def in_rank(sequences: Iterable[Sequence]) -> list[Sequence]:
    """The one that goes first, first."""
    return sorted(sequences, key=lambda sequence: sequence.rank)
