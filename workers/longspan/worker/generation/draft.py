"""A step that is being planned: which sequence is computed up to where."""

from __future__ import annotations

from collections.abc import Callable

from longspan.worker.generation.limits import SMALLEST_CHUNK, StepLimits
from longspan.worker.generation.memory import BlockTables
from longspan.worker.generation.plan import Chunk, SequenceId, StepPlan
from longspan.worker.generation.sequence import Sequence
from longspan.worker.generation.states import SequenceState
from longspan.worker.generation.work import Work
from longspan.worker.kv.chain import PageKey

Placing = Callable[[Sequence, int], BlockTables]
"""Where a sequence's first pages lie."""


class Draft:
    """Rows that grow until the step is full.

    Args:
        limits: tokens and rows of the step.
        work_limit: work of the step; decode rows and a smallest chunk go beyond it.

    Attributes:
        left: tokens that are not given out yet.
        work: cost of the rows.
        barred: sequences that get nothing in this step: they were evicted or cannot go on.
        hopeless: sequences that need more pages than there are.
    """

    def __init__(self, limits: StepLimits, work_limit: float) -> None:
        self.left = limits.budget_tokens
        self.work = 0.0
        self._cost = Work(limits.parity_tokens)
        self._work_limit = work_limit
        self._prefills = False
        self.barred: set[SequenceId] = set()
        self.hopeless: list[Sequence] = []
        self._limits = limits
        self._sequences: dict[SequenceId, Sequence] = {}
        self._ends: dict[SequenceId, int] = {}
        self._writers: dict[PageKey, SequenceId] = {}

    @property
    def first_prefill(self) -> bool:
        """True until something but decode rows is in the step."""
        return not self._prefills

    def end(self, sequence: Sequence) -> int:
        """Position behind the last one that is planned or computed."""
        return self._ends.get(sequence.sequence_id, sequence.computed)

    def room(self, sequence: Sequence) -> int:
        """Tokens that the sequence may still get."""
        if sequence.sequence_id in self.barred:
            return 0
        has_row = sequence.sequence_id in self._ends or len(self._ends) < self._limits.sequences
        if not has_row:
            return 0
        affordable = self.affordable(sequence, self._work_limit - self.work)
        if not self._prefills:
            affordable = max(affordable, SMALLEST_CHUNK)
        return min(self.left, sequence.free_end - self.end(sequence), affordable)

    def affordable(self, sequence: Sequence, work: float) -> int:
        """Tokens of the sequence that cost at most ``work``."""
        return self._cost.affordable(sequence.depth(self.end(sequence)), work)

    def end_of_own(self, sequence: Sequence, end: int) -> int:
        """``end``, or where a page begins that another row computes and that can be shared."""
        start = self.end(sequence)
        first = -(-start // sequence.page_tokens)
        for page in range(first, sequence.pages_for(end)):
            if not sequence.page_borrowable(page):
                break
            if self._writers.get(sequence.key(page), sequence.sequence_id) != sequence.sequence_id:
                return page * sequence.page_tokens
        return end

    def extend(self, sequence: Sequence, end: int) -> None:
        """Plan a sequence's positions up to ``end``; their pages are there."""
        start = self.end(sequence)
        self.left -= end - start
        self.work += self._cost.of(sequence.depth(start), end - start)
        self._prefills |= sequence.state is not SequenceState.DECODING
        self._sequences[sequence.sequence_id] = sequence
        self._ends[sequence.sequence_id] = end
        for page in range(start // sequence.page_tokens, sequence.pages_for(end)):
            if sequence.page_known(page):
                self._writers.setdefault(sequence.key(page), sequence.sequence_id)

    def bar(self, sequence: Sequence) -> None:
        """Take back what a sequence has in this step, and give it nothing more."""
        self.barred.add(sequence.sequence_id)
        end = self._ends.pop(sequence.sequence_id, None)
        if end is not None:
            self.left += end - sequence.computed
            start = sequence.computed
            self.work -= self._cost.of(sequence.depth(start), end - start)
            del self._sequences[sequence.sequence_id]
            writers = self._writers.items()
            self._writers = {key: who for key, who in writers if who != sequence.sequence_id}

    def plan(self, place: Placing) -> StepPlan | None:
        """The step; None where nothing is in it."""
        chunks = [self._chunk(sequence, place) for sequence in self._sequences.values()]
        chunks.sort(key=lambda chunk: not (chunk.samples and len(chunk.tokens) == 1))
        return StepPlan(tuple(chunks)) if chunks else None

    def _chunk(self, sequence: Sequence, place: Placing) -> Chunk:
        end = self._ends[sequence.sequence_id]
        tables = place(sequence, sequence.pages_for(end))
        complete = end == len(sequence.tokens) and sequence.state is not SequenceState.OPEN
        return Chunk(
            sequence_id=sequence.sequence_id,
            start=sequence.computed,
            tokens=sequence.tokens.view(sequence.computed, end),
            block_tables=tables.frames,
            samples=complete and sequence.samples,
            view=sequence.view,
            numbers=tables.numbers,
        )
