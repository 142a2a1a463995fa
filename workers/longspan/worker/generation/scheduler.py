"""Which sequences the next step of a decoder computes, and how far: pure policy."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

import numpy as np
import numpy.typing as npt

from longspan.worker.generation.below import Below
from longspan.worker.generation.limits import OPEN_SEQUENCES, StepLimits
from longspan.worker.generation.memory import Memory, knows_nothing
from longspan.worker.generation.outcomes import (
    Ending,
    FailureReason,
    FinishReason,
    Outcome,
    Refused,
    Sampled,
    SequenceCancelled,
    SequenceFailed,
    SequenceFinished,
    SequencePrefilled,
)
from longspan.worker.generation.plan import Chunk, SequenceId, StepPlan
from longspan.worker.generation.planner import Planner
from longspan.worker.generation.sequence import Sequence, SequenceSpec
from longspan.worker.generation.states import Move, SequenceState
from longspan.worker.generation.step_meter import StepMeter
from longspan.worker.kv.label import Label
from longspan.worker.kv.pages import PageTable

LOOK_AGAIN_S = 0.1
"""How often a sequence that waits for a page from below asks whether it still should."""


class Scheduler:
    """The sequences of one stream.

    The caller loops ``plan`` → run → ``commit``; at most one plan is open. After every
    ``plan``, and where none was made, ``outcomes`` tells what happened beside the steps. Every
    sequence that ``open`` took ends exactly once, in the answer of ``cancel``, ``commit`` or
    ``outcomes``. Times are seconds of any monotonic clock.

    A chunk's arrays are views: they hold until its plan is committed.

    Args:
        limits: of a step.
        pages: the pool.
        page_tokens: of a page.
        context_tokens: the longest sequence that keeps all of its pages.
        positions: the longest sequence that the model allows; None is the same.
        below: the tiers below the pool, if there are any.

    ``meter`` counts the steps.
    """

    def __init__(
        self,
        limits: StepLimits,
        pages: PageTable,
        *,
        page_tokens: int = 256,
        context_tokens: int,
        positions: int | None = None,
        below: Below | None = None,
    ) -> None:
        self.memory = Memory(pages, page_tokens)
        self.meter = StepMeter()
        self._planner = Planner(limits, self.memory)
        self._below = below
        self._page_tokens = page_tokens
        self._context_tokens = context_tokens
        self._positions = positions or context_tokens
        self._sequences: dict[SequenceId, Sequence] = {}
        self._outcomes: list[Outcome] = []
        self._open: StepPlan | None = None
        self._running: frozenset[SequenceId] = frozenset()
        self._serials = count()

    def __contains__(self, sequence_id: SequenceId) -> bool:
        return sequence_id in self._sequences

    @property
    def sequences(self) -> int:
        """Sequences that have not ended."""
        return len(self._sequences)

    @property
    def idle(self) -> bool:
        """True where nothing is left to do or to tell."""
        return not self._sequences and not self._outcomes

    @property
    def running(self) -> tuple[SequenceId, ...]:
        """Sequences in the open step."""
        return self._open.sequence_ids if self._open else ()

    @property
    def waiting(self) -> tuple[SequenceId, ...]:
        """Sequences whose prefill goes on, in the order of service if nothing else came."""
        return self._planner.order(self._sequences.values())

    @property
    def restoring(self) -> Mapping[SequenceId, int]:
        """How many pages are on their way from below, by sequence."""
        return {} if self._below is None else self._below.restoring

    def open(self, spec: SequenceSpec, now: float) -> None:
        """Take a new sequence.

        Raises:
            Refused: the id is in use, the prompt can never be read, or too many are open.
        """
        if spec.sequence_id in self._sequences:
            message = f"job {spec.sequence_id} is open already"
            raise Refused(FailureReason.DUPLICATE_JOB, message)
        if len(self._sequences) >= OPEN_SEQUENCES:
            raise Refused(FailureReason.QUEUE_FULL, f"{len(self._sequences)} jobs are open")
        sequence = Sequence(spec, self._page_tokens, now, next(self._serials))
        fault = self._fault(sequence, len(spec.prompt), spec.sealed)
        if fault is not None:
            raise Refused(fault.reason, fault.message)
        self._sequences[spec.sequence_id] = sequence
        self._read(sequence, spec.prompt, spec.sealed, spec.task_start)
        sequence.note_ready(now)

    def append(
        self,
        sequence_id: SequenceId,
        tokens: npt.NDArray[np.uint32],
        *,
        seal: bool,
        task_start: int | None = None,
        now: float | None = None,
    ) -> None:
        """Continue a prompt; a sequence whose prompt cannot be read fails.

        ``task_start`` counts with ``seal``: the tokens of the documents and of what stands before
        them; None is all of them.

        An unknown id is ignored: the sequence may have ended already.
        """
        sequence = self._sequences.get(sequence_id)
        if sequence is None or sequence.state is SequenceState.DOOMED:
            return
        fault = self._fault(sequence, len(tokens), seal)
        if fault is not None:
            self._conclude(sequence, fault)
        else:
            self._read(sequence, tokens, seal, task_start)
            if now is not None:
                sequence.note_ready(now)

    def cancel(self, sequence_id: SequenceId) -> Outcome | None:
        """Forget a sequence: at once, or by the ``commit`` of the step that it is in.

        An unknown id is ignored: the sequence may have ended already.
        """
        sequence = self._sequences.get(sequence_id)
        if sequence is None or sequence.state is SequenceState.DOOMED:
            return None
        ending = SequenceCancelled(sequence_id)
        if sequence_id in self._running:
            self._doom(sequence, ending)
            return None
        return self._end(sequence, ending)

    def plan(self, now: float) -> StepPlan | None:
        """Open the next step; None while one is open or nothing can be computed."""
        if self._open is not None:
            return None
        self._expire(now)
        if self._below is not None:
            self._below.collect()
        self._planner.borrow(self._sequences.values())
        if self._below is not None:
            self._below.bring(self._sequences.values())
        self._finish_read_ones()
        self.meter.ready(self._sequences.values(), now)
        draft = self._planner.plan(self._sequences.values(), now)
        self._open = draft.plan(self.memory.tables)
        self._running = frozenset(self._open.sequence_ids if self._open else ())
        self.meter.planned(self._open, self._sequences, now)
        for sequence in draft.hopeless:
            self._conclude(sequence, self._too_large(sequence, len(sequence.tokens)))
        for sequence in self._sequences.values():
            if sequence.sequence_id not in self._running:
                self._outcomes += self._progress(sequence)
        return self._open

    def commit(
        self, plan: StepPlan, sampled: Mapping[SequenceId, Sampled], seconds: float | None = None
    ) -> list[Outcome]:
        """Close the open step; ``sampled`` has a token for every chunk that samples.

        ``seconds`` is how long it took, where somebody measured.
        """
        assert plan is self._open
        if self._below is not None and seconds is not None:
            self._below.took(plan, seconds)
        self.meter.computed(plan, len(sampled))
        self._open = None
        self._running = frozenset()
        return [outcome for chunk in plan.chunks for outcome in self._settle(chunk, sampled)]

    def rename(self, sequence_id: SequenceId, subject: str) -> Label | None:
        """What a sequence is about has another name from now on.

        Returns:
            The label of what it had the old name for; None where it ended already, or had none.
        """
        sequence = self._sequences.get(sequence_id)
        if sequence is None:
            return None
        old = sequence.label(0)
        sequence.subject = subject
        if not old.subject:
            return None
        if self._below is not None:
            self._below.rename(old, subject)
        return old

    def label(self, sequence_id: SequenceId) -> Label:
        """Whose a sequence is, and what it is about.

        Raises:
            KeyError: it has ended.
        """
        return self._sequences[sequence_id].label(0)

    def forget(self, tenant: str, subject: str) -> None:
        """What waits to be stored of a tenant's subject is not stored; empty names mean all."""
        if self._below is not None:
            self._below.forget(tenant, subject)

    def outcomes(self) -> list[Outcome]:
        """Hand over what happened beside the steps since the last call."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def next_wakeup(self, now: float) -> float | None:
        """When ``plan`` should be asked again if nothing else happens; None: no such time."""
        if self._open is not None:
            return None
        sequences = self._sequences.values()
        free = self.memory.free
        if self._outcomes or any(sequence.can_go_on(free) for sequence in sequences):
            return now
        times = [s.spec.deadline_s for s in sequences if s.spec.deadline_s is not None]
        if any(sequence.pending > 0 and sequence.is_blocked for sequence in sequences):
            times.append(now + LOOK_AGAIN_S)
        return max(now, min(times)) if times else None

    def check(self) -> None:
        """Verify the accounting of pages.

        Raises:
            AssertionError: it is wrong.
        """
        holds = self._below.holds() if self._below is not None else ()
        self.memory.check(self._sequences.values(), holds)

    def _fault(self, sequence: Sequence, added: int, seal: bool) -> SequenceFailed | None:
        """Why the prompt cannot be continued like this."""
        tokens = sequence.prompt_tokens + added
        if sequence.state is not SequenceState.OPEN:
            message = "the prompt is sealed already"
            return SequenceFailed(sequence.sequence_id, FailureReason.PROMPT_SEALED, message)
        context = self._context(sequence)
        if tokens > context - sequence.samples:
            message = f"{tokens} tokens; the model reads {context}, output included"
            return SequenceFailed(sequence.sequence_id, FailureReason.PROMPT_TOO_LONG, message)
        if not self.memory.fits(sequence, tokens):
            return self._too_large(sequence, tokens)
        if seal and tokens == 0:
            message = "the prompt has no tokens"
            return SequenceFailed(sequence.sequence_id, FailureReason.EMPTY_PROMPT, message)
        return None

    def _too_large(self, sequence: Sequence, tokens: int) -> SequenceFailed:
        held = self.memory.total * self._page_tokens
        message = f"{tokens} tokens; the KV cache holds {held}"
        return SequenceFailed(sequence.sequence_id, FailureReason.OUT_OF_PAGES, message)

    def _context(self, sequence: Sequence) -> int:
        """Tokens that it may have: where no pages are kept, only positions end it."""
        if not sequence.drops:
            return self._context_tokens
        longest = self.memory.longest(sequence.spec.retentions)
        return min(self._positions, longest * self._page_tokens)

    def _read(
        self,
        sequence: Sequence,
        tokens: npt.NDArray[np.uint32],
        seal: bool,
        task_start: int | None,
    ) -> None:
        sequence.read(tokens)
        if seal:
            sequence.seal(task_start)
            if self._is_complete(sequence):
                self._conclude(sequence, self._finished(sequence, FinishReason.LENGTH))

    def _is_complete(self, sequence: Sequence) -> bool:
        """True where no further token may be sampled."""
        return sequence.samples and (
            sequence.output_tokens >= sequence.spec.max_tokens
            or len(sequence.tokens) >= self._context(sequence)
        )

    def _expire(self, now: float) -> None:
        for sequence in list(self._sequences.values()):
            deadline_s = sequence.spec.deadline_s
            if deadline_s is not None and deadline_s <= now:
                reason, message = FailureReason.DEADLINE_EXCEEDED, "the deadline passed"
                self._conclude(sequence, SequenceFailed(sequence.sequence_id, reason, message))

    def _finish_read_ones(self) -> None:
        """End the sequences that were only to be read, and whose last page was cached."""
        for sequence in list(self._sequences.values()):
            if sequence.state is SequenceState.SEALED and sequence.pending == 0:
                self._outcomes += self._progress(sequence)
                self._conclude(sequence, self._finished(sequence, FinishReason.STOP))

    def _settle(self, chunk: Chunk, sampled: Mapping[SequenceId, Sampled]) -> list[Outcome]:
        """Take in one chunk of a step that was computed."""
        sequence = self._sequences[chunk.sequence_id]
        first, missing = sequence.page, sequence.missing_tokens
        below = self._below.knows if self._below is not None else knows_nothing
        self.memory.count_missing(sequence, chunk.end, below)
        self.memory.complete(sequence, chunk.end)
        self.meter.pages(sequence, first, missing)
        if self._below is not None:
            self._below.completed(sequence, first)
        if sequence.ending is not None:
            return [self._end(sequence, sequence.ending)]
        outcomes: list[Outcome] = [*self._progress(sequence)]
        reason = self._push(sequence, sampled[chunk.sequence_id]) if chunk.samples else None
        if sequence.state is SequenceState.SEALED and sequence.pending == 0:
            reason = FinishReason.STOP
        if reason is not None:
            outcomes.append(self._end(sequence, self._finished(sequence, reason)))
        return outcomes

    def _push(self, sequence: Sequence, sampled: Sampled) -> FinishReason | None:
        sequence.push(sampled.token)
        if sampled.finish is not None:
            return sampled.finish
        return FinishReason.LENGTH if self._is_complete(sequence) else None

    def _progress(self, sequence: Sequence) -> list[SequencePrefilled]:
        """What is new about its prefill, if anything."""
        tokens = min(sequence.computed, sequence.prompt_tokens)
        if tokens <= sequence.reported_tokens:
            return []
        sequence.reported_tokens = tokens
        cached, missing = sequence.cached_tokens, sequence.missing_tokens
        return [SequencePrefilled(sequence.sequence_id, tokens, cached, missing)]

    def _finished(self, sequence: Sequence, reason: FinishReason) -> SequenceFinished:
        return SequenceFinished(
            sequence.sequence_id,
            reason,
            sequence.prompt_tokens,
            sequence.cached_tokens,
            sequence.output_tokens,
            policy=sequence.spec.policy.name,
            frames=self.memory.frames(sequence),
            pages=self.memory.pages(sequence),
            seen_share=sequence.seen_share(),
        )

    def _conclude(self, sequence: Sequence, ending: Ending) -> None:
        """End a sequence now, or when the step that it is in is over."""
        if sequence.sequence_id in self._running:
            self._doom(sequence, ending)
        else:
            self._outcomes.append(self._end(sequence, ending))

    def _doom(self, sequence: Sequence, ending: Ending) -> None:
        sequence.move(Move.DOOM)
        sequence.ending = ending

    def _end(self, sequence: Sequence, ending: Ending) -> Ending:
        match ending:
            case SequenceFinished():
                sequence.move(Move.FINISH)
            case SequenceCancelled():
                sequence.move(Move.CANCEL)
            case SequenceFailed():
                sequence.move(Move.FAIL)
        if self._below is not None:
            self._below.ended(sequence)
        self.meter.tally.cached_tokens += sequence.cached_tokens
        self.memory.release(sequence)
        del self._sequences[sequence.sequence_id]
        return ending
