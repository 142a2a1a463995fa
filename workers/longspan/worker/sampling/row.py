"""How the next token of one row of logits is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longspan.worker.sampling.params import SamplingParams
from longspan.worker.sampling.randomness import uniform


@dataclass(frozen=True, slots=True, eq=False)
class SamplingRow:
    """One row's part of a step.

    Attributes:
        params: of the request.
        index: the token's place in the answer.
        mask: tokens allowed, a bit each, lowest first: int32 [vocabulary / 32] or longer, on
            the CPU. None allows all.
    """

    params: SamplingParams
    index: int
    mask: torch.Tensor | None = None

    @property
    def number(self) -> float:
        """The row's random number: it follows from the request's seed and the token's place."""
        return uniform(self.params.seed, self.index)
