"""Counts what steps compute, and how long it was ready before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from longspan.worker.generation.plan import SequenceId, StepPlan
from longspan.worker.generation.sequence import Sequence
from longspan.worker.generation.states import SequenceState
from longspan.worker.tally import Tally


class StepMeter:
    """Follows a scheduler's steps from plan to commit; ``tally`` has the counts."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._prefill_tokens = 0

    def ready(self, sequences: Iterable[Sequence], now: float) -> None:
        """What these have to compute waits from now on, if it does not already."""
        for sequence in sequences:
            sequence.note_ready(now)

    def planned(
        self, plan: StepPlan | None, sequences: Mapping[SequenceId, Sequence], now: float
    ) -> None:
        """A step takes what was ready."""
        self._prefill_tokens = 0
        for chunk in plan.chunks if plan else ():
            sequence = sequences[chunk.sequence_id]
            waited_s = sequence.taken(now)
            if sequence.state is not SequenceState.DECODING:
                self._prefill_tokens += len(chunk.tokens)
                self.tally.waits_s.append(waited_s)

    def computed(self, plan: StepPlan, sampled: int) -> None:
        """The step is over."""
        self.tally.step(plan.tokens, self._prefill_tokens, sampled)

    def pages(self, sequence: Sequence, first: int, missing_tokens: int) -> None:
        """A sequence went on from this page, with so many tokens known to be missing by then."""
        size = sequence.page_tokens
        read = min(sequence.page, sequence.prompt_tokens // size)
        self.tally.pages(read - first, (sequence.missing_tokens - missing_tokens) // size)
