"""The generation policy, driven through every interleaving that hypothesis can find."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from longspan.worker.generation.outcomes import (
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
from longspan.worker.generation.plan import SequenceId, StepPlan
from tests.worker.scheduling import (
    PAGE_TOKENS,
    ToyModel,
    expected_output,
    ids,
    is_terminal,
    make_scheduler,
    spec,
    text,
)

PAGES = 12
SEQUENCES = 3
BUDGET = 24
CONTEXT = 110


@dataclass
class Record:
    """What the test knows of a sequence."""

    tenant: str
    prompt: list[int]
    delivered: list[int]
    max_tokens: int
    deadline_s: float | None
    sealed: bool
    end: Outcome | None = None
    prefilled: int = 0
    cancelled: bool = False
    finishes: list[FinishReason] = field(default_factory=list)


class Generating(RuleBasedStateMachine):
    """Random sequences of two tenants on too few pages, against a plain record of the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = make_scheduler(
            pages=PAGES, budget_tokens=BUDGET, sequences=SEQUENCES, context_tokens=CONTEXT
        )
        self.model = ToyModel()
        self.now = 0.0
        self.records: dict[SequenceId, Record] = {}
        self.plan: StepPlan | None = None

    def live(self) -> list[SequenceId]:
        return [number for number, record in self.records.items() if record.end is None]

    def growing(self) -> list[SequenceId]:
        return [number for number in self.live() if not self.records[number].sealed]

    @rule(
        tenant=st.sampled_from(["a", "a", "b"]),
        length=st.integers(0, 100),
        document=st.integers(0, 1),
        sealed=st.booleans(),
        max_tokens=st.sampled_from([0, 1, 3, 20]),
        delivered=st.sampled_from([0, 0, 0, 1, 2, 5]),
        priority=st.integers(0, 3),
        deadline_s=st.sampled_from([None, None, None, 2.0]),
    )
    def open(
        self,
        tenant: str,
        length: int,
        document: int,
        sealed: bool,
        max_tokens: int,
        delivered: int,
        priority: int,
        deadline_s: float | None,
    ) -> None:
        number = SequenceId(len(self.records) + 1)
        prompt = text(length, document)
        before = expected_output(prompt, delivered) if max_tokens and sealed and length else []
        deadline = None if deadline_s is None else self.now + deadline_s
        opened = spec(
            number,
            prompt,
            sealed=sealed,
            max_tokens=max_tokens,
            priority=priority,
            tenant=tenant,
            delivered=before,
            deadline_s=deadline,
        )
        if (sealed and not length) or length > PAGES * PAGE_TOKENS:
            with pytest.raises(Refused):
                self.scheduler.open(opened, self.now)
            return
        self.scheduler.open(opened, self.now)
        self.records[number] = Record(tenant, prompt.tolist(), before, max_tokens, deadline, sealed)

    @precondition(lambda self: self.growing())
    @rule(data=st.data(), count=st.integers(0, 40), seal=st.booleans())
    def append(self, data: st.DataObject, count: int, seal: bool) -> None:
        number = data.draw(st.sampled_from(self.growing()))
        record = self.records[number]
        added = text(200, 1)[len(record.prompt) : len(record.prompt) + count]
        record.prompt += added.tolist()
        record.sealed = seal
        self.scheduler.append(number, added, seal=seal)

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.records)))
        ended = self.records[number].end is not None
        outcome = self.scheduler.cancel(number)
        assert not (ended and outcome)
        self.records[number].cancelled = not ended
        self.take([outcome] if outcome else [])

    @rule(seconds=st.sampled_from([0.1, 1.0, 20.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.plan is None)
    @rule()
    def start_step(self) -> None:
        wakeup = self.scheduler.next_wakeup(self.now)
        self.plan = self.scheduler.plan(self.now)
        outcomes = self.scheduler.outcomes()
        self.take(outcomes)
        if wakeup == self.now:
            assert self.plan or outcomes, "nothing came of a wakeup"
        else:
            assert self.plan is None
        if self.plan is not None:
            self.look_at(self.plan)

    def look_at(self, plan: StepPlan) -> None:
        assert 0 < plan.tokens <= BUDGET
        assert len(set(plan.sequence_ids)) == len(plan.chunks) <= SEQUENCES
        decodes = [chunk.samples and len(chunk.tokens) == 1 for chunk in plan.chunks]
        assert decodes == sorted(decodes, reverse=True)
        for chunk in plan.chunks:
            record = self.records[chunk.sequence_id]
            known = record.prompt + record.delivered + self.sampled(chunk.sequence_id)
            assert chunk.tokens.tolist() == known[chunk.start : chunk.end]
            self.look_for_foreign_pages(
                chunk.block_tables[0][: chunk.start // PAGE_TOKENS], record.tenant
            )
        assert self.scheduler.running == plan.sequence_ids
        assert self.scheduler.plan(self.now) is None
        assert self.scheduler.next_wakeup(self.now) is None

    def look_for_foreign_pages(self, pages: npt.NDArray[np.int32], tenant: str) -> None:
        for page in pages.tolist():
            assert self.records[self.model.writers[page]].tenant == tenant

    def sampled(self, number: SequenceId) -> list[int]:
        return self.model.output.get(number, [])

    @precondition(lambda self: self.plan is not None)
    @rule(data=st.data())
    def finish_step(self, data: st.DataObject) -> None:
        assert self.plan is not None
        plan, self.plan = self.plan, None
        sampled = self.model.run(plan)
        for number in (
            data.draw(st.sets(st.sampled_from(plan.sampled)) if sampled else st.none()) or ()
        ):
            sampled[number] = Sampled(sampled[number].token, FinishReason.STOP)
            self.records[number].finishes.append(FinishReason.STOP)
        self.take(self.scheduler.commit(plan, sampled))

    def take(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            record = self.records[outcome.sequence_id]
            assert record.end is None
            if is_terminal(outcome):
                record.end = outcome
            match outcome:
                case SequencePrefilled(_, tokens, cached):
                    assert record.prefilled < tokens <= len(record.prompt)
                    assert cached <= tokens
                    record.prefilled = tokens
                case SequenceFinished():
                    self.check_finished(record, outcome)
                case SequenceCancelled():
                    assert record.cancelled
                case SequenceFailed():
                    self.check_failed(record, outcome)

    def check_finished(self, record: Record, end: SequenceFinished) -> None:
        assert record.sealed
        output = record.delivered + self.sampled(end.sequence_id)
        assert (end.prompt_tokens, end.output_tokens) == (len(record.prompt), len(output))
        if record.max_tokens:
            assert output == expected_output(ids(record.prompt), len(output))
        else:
            assert not output
        if end.reason is FinishReason.LENGTH:
            assert len(output) >= record.max_tokens or len(record.prompt + output) >= CONTEXT

    def check_failed(self, record: Record, end: SequenceFailed) -> None:
        tokens = len(record.prompt) + len(record.delivered) + len(self.sampled(end.sequence_id))
        match end.reason:
            case FailureReason.DEADLINE_EXCEEDED:
                assert record.deadline_s is not None
                assert record.deadline_s <= self.now
            case FailureReason.PROMPT_TOO_LONG:
                assert len(record.prompt) >= CONTEXT
            case FailureReason.OUT_OF_PAGES:
                assert tokens > PAGES * PAGE_TOKENS
            case _:
                assert end.reason is FailureReason.EMPTY_PROMPT
                assert record.sealed
                assert not record.prompt

    @invariant()
    def pages_are_accounted_for(self) -> None:
        self.scheduler.check()
        pending = {outcome.sequence_id for outcome in self.scheduler._outcomes}
        assert (
            self.scheduler.sequences <= len(self.live()) <= self.scheduler.sequences + len(pending)
        )

    def teardown(self) -> None:
        for number in self.growing():
            self.records[number].sealed = True
            self.scheduler.append(number, ids([1]), seal=True)
            self.records[number].prompt.append(1)
        for _ in range(2000):
            if self.plan is not None:
                plan, self.plan = self.plan, None
                self.take(self.scheduler.commit(plan, self.model.run(plan)))
                self.pages_are_accounted_for()
            elif self.scheduler.idle:
                break
            else:
                self.start_step()
        assert self.live() == []
        assert self.scheduler.idle


TestGenerating = Generating.TestCase
TestGenerating.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
