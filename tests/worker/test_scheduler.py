"""The batching policy, driven through every interleaving that hypothesis can find."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from longspan.worker.encoding.job import MOVES, IllegalMove, Job, JobId, JobState, Move, text_tokens
from longspan.worker.encoding.scheduler import JobCancelled, JobEncoded, Outcome, Plan, Scheduler
from longspan.worker.limits import StepLimits

LIMITS = StepLimits(budget_tokens=40, texts=4)
WORD = b"\1\0\0\0"


def scheduler_with(*jobs: tuple[int, int, float]) -> Scheduler:
    """A scheduler holding (texts, tokens of each, max_wait_s) jobs numbered from 1, at time 0."""
    scheduler = Scheduler(LIMITS)
    for number, (texts, tokens, max_wait_s) in enumerate(jobs, 1):
        body = [WORD * (tokens - 2)] * texts
        scheduler.submit(JobId(number), body, max_wait_s=max_wait_s, now=0.0)
    return scheduler


def echo(plan: Plan) -> list[bytes]:
    """A runner whose vector is the text itself."""
    return [text.tokens for text in plan.texts]


class Batching(RuleBasedStateMachine):
    """Random arrivals, cancels, clock ticks and steps against a plain record of the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(LIMITS)
        self.now = 0.0
        self.submitted: dict[JobId, list[bytes]] = {}
        self.deadlines: dict[JobId, float] = {}
        self.ends: dict[JobId, Outcome] = {}
        self.open: Plan | None = None
        self.seen: set[bytes] = set()

    @rule(
        lengths=st.lists(st.integers(1, 38), min_size=1, max_size=9),
        max_wait_s=st.sampled_from([0.0, 0.0, 0.1, 1.0, 5.0]),
    )
    def submit(self, lengths: list[int], max_wait_s: float) -> None:
        job_id = JobId(len(self.submitted) + 1)
        texts = [
            (job_id * 100 + index).to_bytes(4, "little") * length
            for index, length in enumerate(lengths)
        ]
        self.submitted[job_id] = texts
        self.deadlines[job_id] = self.now + max_wait_s
        self.scheduler.submit(job_id, texts, max_wait_s=max_wait_s, now=self.now)

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.submitted)))
        outcome = self.scheduler.cancel(job_id)
        if outcome is not None:
            self.end(outcome)

    @rule(seconds=st.sampled_from([0.01, 0.1, 2.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.open is None)
    @rule()
    def start_step(self) -> None:
        overdue = any(
            deadline <= self.now for job, deadline in self.deadlines.items() if job not in self.ends
        )
        wakeup = self.scheduler.next_wakeup(self.now)
        self.open = self.scheduler.plan(self.now)
        if overdue:
            assert self.open is not None
            assert wakeup == self.now
        if self.open is not None:
            self.check(self.open)

    def check(self, plan: Plan) -> None:
        assert 0 < len(plan.texts) <= LIMITS.texts
        assert plan.tokens <= LIMITS.budget_tokens
        markers = {text.tokens[:4] for text in plan.texts}
        assert len(markers) == len(plan.texts)
        assert not markers & self.seen
        self.seen |= markers
        assert self.scheduler.plan(self.now) is None
        assert self.scheduler.next_wakeup(self.now) is None

    @precondition(lambda self: self.open is not None)
    @rule()
    def finish_step(self) -> None:
        assert self.open is not None
        for outcome in self.scheduler.commit(self.open, echo(self.open)):
            self.end(outcome)
        self.open = None

    def end(self, outcome: Outcome) -> None:
        assert outcome.job_id not in self.ends
        self.ends[outcome.job_id] = outcome
        if isinstance(outcome, JobEncoded):
            assert outcome.vectors == b"".join(self.submitted[outcome.job_id])

    @invariant()
    def open_jobs_are_counted(self) -> None:
        assert self.scheduler.jobs == len(self.submitted) - len(self.ends)

    def teardown(self) -> None:
        while self.open is not None or self.scheduler.jobs:
            if self.open is not None:
                self.finish_step()
                continue
            wakeup = self.scheduler.next_wakeup(self.now)
            assert wakeup is not None
            self.now = wakeup
            self.start_step()
            assert self.open is not None
        assert self.ends.keys() == self.submitted.keys()
        assert self.scheduler.waiting_tokens == 0
        assert self.scheduler.running == ()


TestBatching = Batching.TestCase
TestBatching.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_lone_patient_text_waits_for_its_deadline() -> None:
    scheduler = scheduler_with((1, 10, 0.1))
    assert scheduler.plan(0.05) is None
    assert scheduler.next_wakeup(0.05) == 0.1
    plan = scheduler.plan(0.1)
    assert plan is not None
    assert plan.job_ids == (1,)


@pytest.mark.parametrize(("texts", "tokens"), [(4, 5), (2, 20), (3, 15)])
def test_a_full_step_starts_before_any_deadline(texts: int, tokens: int) -> None:
    assert scheduler_with((texts, tokens, 9.0)).plan(0.0) is not None


def test_an_interactive_job_overtakes_patient_ones_and_takes_them_along() -> None:
    plan = scheduler_with((1, 10, 9.0), (1, 10, 0.0)).plan(0.0)
    assert plan is not None
    assert plan.job_ids == (2, 1)


def test_a_large_job_is_spread_over_steps_and_ends_once() -> None:
    scheduler = scheduler_with((10, 10, 0.0))
    sizes: list[int] = []
    ends: list[Outcome] = []
    while (plan := scheduler.plan(0.0)) is not None:
        sizes.append(len(plan.texts))
        ends += scheduler.commit(plan, echo(plan))
    assert sizes == [4, 4, 2]
    assert ends == [JobEncoded(JobId(1), WORD * 8 * 10)]


def test_a_running_job_is_cancelled_when_its_step_ends() -> None:
    scheduler = scheduler_with((1, 10, 0.0))
    plan = scheduler.plan(0.0)
    assert plan is not None
    assert scheduler.cancel(JobId(1)) is None
    assert scheduler.cancel(JobId(1)) is None
    assert JobId(1) in scheduler
    assert scheduler.commit(plan, echo(plan)) == [JobCancelled(JobId(1))]
    assert scheduler.jobs == 0


def test_the_cancel_of_an_unknown_job_is_ignored() -> None:
    assert scheduler_with().cancel(JobId(7)) is None


def test_terminal_states_allow_no_move() -> None:
    left = {state for state, _ in MOVES}
    assert left == {JobState.WAITING, JobState.RUNNING, JobState.DOOMED}
    job = Job(JobId(1), [WORD], 0.0)
    job.move(Move.CANCEL)
    with pytest.raises(IllegalMove, match="TAKEN in CANCELLED"):
        job.take()


def test_special_tokens_count_towards_a_text() -> None:
    assert text_tokens(WORD * 3) == 5
