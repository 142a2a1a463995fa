"""Shares of the prefill budget: a credit for short sequences, turns for long ones.

M. Shreedhar, G. Varghese, "Efficient Fair Queueing using Deficit Round Robin", SIGCOMM 1995.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Mapping

from longspan.worker.generation.plan import SequenceId


class Credit:
    """A bucket that fills with the work that is done, not with time.

    Args:
        share: part of all work that is earned.
        burst: the most that is saved up; also what there is at first.

    Attributes:
        balance: what may be spent now. It may be overdrawn by one token's work.
    """

    def __init__(self, share: float, burst: float) -> None:
        self._share = share
        self._burst = burst
        self.balance = burst

    def settle(self, *, done: float, spent: float) -> None:
        """Close a step that did so much work, ``spent`` of it on credit."""
        self.balance = min(self.balance + self._share * done - spent, self._burst)


class DeficitRing:
    """Deficit round robin over sequences; a turn goes on over steps until it is spent.

    Args:
        quantum_tokens: what a turn adds to a sequence's deficit, for each unit of weight.
    """

    def __init__(self, quantum_tokens: int) -> None:
        self._quantum_tokens = quantum_tokens
        self._deficits: OrderedDict[SequenceId, int] = OrderedDict()
        self._weights: Mapping[SequenceId, int] = {}
        self._turn: SequenceId | None = None

    @property
    def order(self) -> tuple[SequenceId, ...]:
        """The members, the one with the turn first."""
        return tuple(self._deficits)

    def keep(self, weights: Mapping[SequenceId, int]) -> None:
        """Name all members and their weights; new ones come last, others lose their deficit."""
        for gone in self._deficits.keys() - weights.keys():
            del self._deficits[gone]
        for sequence_id in weights:
            self._deficits.setdefault(sequence_id, 0)
        self._weights = weights

    def next(self, among: Container[SequenceId]) -> SequenceId:
        """The first of some members, with its turn begun."""
        chosen = next(member for member in self._deficits if member in among)
        if chosen != self._turn:
            quantum = self._quantum_tokens * self._weights[chosen]
            self._deficits[chosen] = min(self._deficits[chosen] + quantum, 2 * quantum)
            self._turn = chosen
        return chosen

    def deficit(self, sequence_id: SequenceId) -> int:
        """What a member may spend before its turn is over."""
        return self._deficits[sequence_id]

    def spend(self, sequence_id: SequenceId, tokens: int) -> None:
        """Charge a member."""
        self._deficits[sequence_id] -= tokens

    def pass_on(self, sequence_id: SequenceId) -> None:
        """End a member's turn; what is left of its deficit stays for the next one."""
        self._deficits.move_to_end(sequence_id)
        if self._turn == sequence_id:
            self._turn = None
