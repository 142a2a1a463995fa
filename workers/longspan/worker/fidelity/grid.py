"""Lengths, depths and policies, one document after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.fidelity.cell import Fidelity, measure
from longspan.worker.fidelity.document import hidden
from longspan.worker.fidelity.needle import random_needle
from longspan.worker.fidelity.prompt import Prompter
from longspan.worker.fidelity.session import Session

Pieces = Callable[[], Iterable[str]]
"""The long text, from its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What is measured.

    Attributes:
        lengths: tokens of a whole prompt.
        depths: where the number is hidden, 0 to 1 of the document.
        policies: the first is full attention, which the others are compared with.
        answer_tokens: of a greedy answer, at most.
    """

    lengths: Sequence[int]
    depths: Sequence[float]
    policies: Sequence[ModelPolicy]
    answer_tokens: int

    @property
    def cells(self) -> int:
        """Measurements."""
        return len(self.lengths) * len(self.depths) * len(self.policies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One measurement.

    Attributes:
        length, depth: as asked.
        perplexity_change: against full attention on the same document; 0.01 is 1% more.
    """

    length: int
    depth: float
    perplexity_change: float
    fidelity: Fidelity

    def values(self) -> dict[str, Any]:
        """All of it as JSON values."""
        own = {"length": self.length, "depth": self.depth}
        return own | asdict(self.fidelity) | {"perplexity_change": self.perplexity_change}


def measured(session: Session, prompter: Prompter, pieces: Pieces, grid: Grid) -> Iterator[Cell]:
    """The cells, by length, then depth, then policy.

    Raises:
        StartFailure: the text is too short for a length.
    """
    assert grid.policies[0].full
    for length in grid.lengths:
        for depth in grid.depths:
            needle = random_needle(f"{length} {depth}")
            document = hidden(prompter, pieces(), needle, length=length, depth=depth)
            full: Fidelity | None = None
            for policy in grid.policies:
                found = measure(
                    session, prompter, document, policy, answer_tokens=grid.answer_tokens
                )
                full = full or found
                yield Cell(
                    length=length,
                    depth=depth,
                    perplexity_change=found.perplexity / full.perplexity - 1,
                    fidelity=found,
                )
