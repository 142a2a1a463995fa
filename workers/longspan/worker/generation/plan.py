"""One step of the generation engine, as integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

import numpy as np
import numpy.typing as npt

from longspan.worker.attention.layer_plan import FULL_VIEW, View

SequenceId = NewType("SequenceId", int)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """One sequence's part of a step.

    Attributes:
        start: position of its first token.
        tokens: uint32 [n], at least one.
        block_tables: int32, where the pages of positions [0, start + n) lie; one for each frame
            of a page.
        numbers: int32, the numbers of the same pages; None where nothing is found by them.
        samples: True where the logits of the last token are sampled.
        view: what its queries see.
    """

    sequence_id: SequenceId
    start: int
    tokens: npt.NDArray[np.uint32]
    block_tables: tuple[npt.NDArray[np.int32], ...]
    samples: bool
    view: View = FULL_VIEW
    numbers: npt.NDArray[np.int32] | None = None

    @property
    def end(self) -> int:
        """Position behind its last token."""
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The chunks that run together as one packed row; those that decode come first."""

    chunks: tuple[Chunk, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the step."""
        return sum(len(chunk.tokens) for chunk in self.chunks)

    @property
    def sequence_ids(self) -> tuple[SequenceId, ...]:
        """The sequences of the step, each once."""
        return tuple(chunk.sequence_id for chunk in self.chunks)

    @property
    def sampled(self) -> tuple[SequenceId, ...]:
        """The sequences that get a token from the step."""
        return tuple(chunk.sequence_id for chunk in self.chunks if chunk.samples)
