"""How long and how fast maps are trained. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast maps are trained.

    Attributes:
        sequences: that are learnt from.
        steps: on each of them.
        rate: of Adam at its peak, which half a cosine takes to a twentieth.
    """

    sequences: int = 8
    steps: int = 10
    rate: float = 0.02

    def at(self, step: int) -> float:
        """The rate of one step of all."""
        share = step / (self.sequences * self.steps)
        return self.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))
