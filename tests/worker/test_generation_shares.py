"""How prefills share the budget: short questions, long documents, priorities."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.worker.generation.deficit import DeficitRing
from longspan.worker.generation.limits import WEIGHTS
from longspan.worker.generation.outcomes import Sampled
from longspan.worker.generation.plan import SequenceId, StepPlan
from longspan.worker.generation.scheduler import Scheduler
from longspan.worker.generation.work import Work
from tests.worker.scheduling import finished, make_scheduler, spec

DOCUMENT = SequenceId(0)
PARITY = 8192
WORK = Work(PARITY)
SECONDS = 1e-4
"""What one unit of work takes in these tests; they run on a clock of their own."""


def scheduler_of(budget_tokens: int = 512) -> Scheduler:
    """A scheduler with pages of the real size."""
    return make_scheduler(
        pages=2000,
        budget_tokens=budget_tokens,
        sequences=32,
        page_tokens=256,
        parity_tokens=PARITY,
    )


def work_of(plan: StepPlan) -> float:
    """What a step costs."""
    return sum(WORK.of(chunk.start, len(chunk.tokens)) for chunk in plan.chunks)


class Clocked:
    """A scheduler whose steps take as long as their work."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.now = 0.0
        self.first_token: dict[SequenceId, float] = {}
        self.ended: dict[SequenceId, float] = {}

    def step(self) -> StepPlan | None:
        """Run one step; let some time go by where there is none."""
        plan = self.scheduler.plan(self.now)
        if plan is None:
            self.now += 100 * SECONDS
            return None
        self.now += work_of(plan) * SECONDS
        for number in plan.sampled:
            self.first_token.setdefault(number, self.now)
        outcomes = self.scheduler.commit(plan, {number: Sampled(1) for number in plan.sampled})
        self.ended |= dict.fromkeys(finished(outcomes), self.now)
        return plan

    def run_until(self, done: Callable[[], bool]) -> None:
        """Step until something is true."""
        for _ in range(100_000):
            if done():
                return
            self.step()
        raise AssertionError("that never happened")


def seconds_alone(tokens: int) -> float:
    """How long a prompt takes when nothing else is there."""
    clocked = Clocked(scheduler_of())
    clocked.scheduler.open(spec(1, tokens, max_tokens=1), 0.0)
    clocked.run_until(lambda: clocked.scheduler.sequences == 0)
    return clocked.now


def serve_beside_document(gap_s: float) -> tuple[list[float], float]:
    """Latencies of 1k questions that arrive every ``gap_s`` beside a 64k document; its end."""
    clocked = Clocked(scheduler_of())
    clocked.scheduler.open(spec(0, 65_536, max_tokens=1), 0.0)
    arrivals: dict[SequenceId, float] = {}
    numbers = count(1)
    while DOCUMENT not in clocked.ended:
        while (due_s := gap_s * (len(arrivals) + 1)) <= clocked.now:
            number = SequenceId(next(numbers))
            arrivals[number] = due_s
            clocked.scheduler.open(spec(number, 1024, max_tokens=4), clocked.now)
        clocked.step()
    waits = [
        clocked.first_token[number] - due_s
        for number, due_s in arrivals.items()
        if number in clocked.first_token
    ]
    return sorted(waits), clocked.ended[DOCUMENT]


@pytest.fixture(scope="module")
def document_alone() -> float:
    """How long a 64k document takes alone."""
    return seconds_alone(65_536)


def test_questions_beside_a_long_document_wait_at_most_three_times_as_long(
    document_alone: float,
) -> None:
    """Questions at a moderate rate, all but the one that finds the document alone."""
    waits, end_s = serve_beside_document(gap_s=0.8)
    assert len(waits) > 20
    assert waits[-2] <= 3 * seconds_alone(1024)
    assert end_s <= document_alone / 0.75


def test_a_flood_of_questions_takes_no_more_than_their_share(document_alone: float) -> None:
    """A document loses at most a quarter, whatever comes."""
    waits, end_s = serve_beside_document(gap_s=0.05)
    assert end_s <= document_alone / 0.75
    assert len(waits) > 20


def test_a_flood_of_documents_leaves_short_questions_their_share() -> None:
    """A question waits for its share of the work, not for the documents."""
    clocked = Clocked(scheduler_of())
    for number in range(10):
        clocked.scheduler.open(spec(number, 20_000), 0.0)
    for number in range(10, 20):
        clocked.scheduler.open(spec(number, 1000), 0.0)
    clocked.run_until(lambda: len(clocked.first_token) == 10)
    assert set(clocked.first_token) == set(range(10, 20))
    work = sum(WORK.of(0, 1000) for _ in range(10))
    assert clocked.now <= (work / 0.2 + 4 * 512) * SECONDS


def test_documents_share_by_priority() -> None:
    """Interactive, normal and batch get four, two and one part."""
    clocked = Clocked(scheduler_of(budget_tokens=2048))
    tokens = dict.fromkeys(range(3), 0)
    for priority in WEIGHTS:
        clocked.scheduler.open(spec(priority - 1, 50_000, priority=priority), 0.0)
    for _ in range(20):
        plan = clocked.step()
        assert plan is not None
        for chunk in plan.chunks:
            tokens[chunk.sequence_id] += len(chunk.tokens)
    part = sum(tokens.values()) / 7
    assert tokens[0] == pytest.approx(part, rel=0.1)
    assert tokens[1] == pytest.approx(2 * part, rel=0.1)
    assert tokens[2] == pytest.approx(4 * part, rel=0.1)


def test_an_old_question_of_low_priority_goes_before_a_young_one_of_high() -> None:
    """Priority is a head start, so that nothing starves."""
    scheduler = scheduler_of()
    scheduler.open(spec(1, 300, priority=1), 0.0)
    scheduler.open(spec(2, 300, priority=3), 1.0)
    scheduler.open(spec(3, 300, priority=3), 100.0)
    assert scheduler.waiting == (2, 1, 3)


def test_the_budget_is_used_up_and_shared_chunks_end_with_a_page() -> None:
    """All but the last chunk of a shared step."""
    clocked = Clocked(scheduler_of(budget_tokens=1300))
    for number in range(3):
        clocked.scheduler.open(spec(number, 10_000), 0.0)
    for _ in range(10):
        plan = clocked.step()
        assert plan is not None
        assert plan.tokens == 1300
        assert sum(chunk.end % 256 > 0 for chunk in plan.chunks) <= 1


def test_deep_in_a_text_a_step_takes_fewer_tokens_when_others_wait_for_it() -> None:
    """The length of a step is a part of the others' latency; alone, it may be longer."""
    clocked = Clocked(scheduler_of())
    clocked.scheduler.open(spec(0, 65_536), 0.0)
    alone = [work_of(plan) for _ in range(150) if (plan := clocked.step())]
    assert max(alone) <= 4 * 512 + 1
    clocked.scheduler.open(spec(1, 100, max_tokens=50), clocked.now)
    shared = [work_of(plan) for _ in range(50) if (plan := clocked.step())]
    assert max(shared) <= 2 * 512 + 1
    assert len(shared) == 50


@given(st.integers(0, 10**6), st.floats(0, 10**6), st.integers(1, 10**6))
def test_what_is_affordable_costs_no_more_and_one_token_more_would(
    start: int, work: float, parity_tokens: int
) -> None:
    """The inverse of the cost."""
    cost = Work(parity_tokens)
    tokens = cost.affordable(start, work)
    assert cost.of(start, tokens) <= work * (1 + 1e-9)
    assert cost.of(start, tokens + 1) >= work * (1 - 1e-9)


@given(
    st.lists(st.sampled_from([1, 2, 4]), min_size=2, max_size=6),
    st.lists(st.integers(1, 100), min_size=1, max_size=200),
)
def test_turns_keep_every_member_within_a_quantum_of_its_weight(
    weights: list[int], budgets: list[int]
) -> None:
    """Backlogged members get what their weights say, whatever the steps' budgets."""
    quantum = 64
    ring = DeficitRing(quantum)
    members = {SequenceId(number): weight for number, weight in enumerate(weights)}
    got = dict.fromkeys(members, 0)
    for budget in budgets:
        ring.keep(members)
        left = budget
        while left:
            member = ring.next(members)
            tokens = min(left, ring.deficit(member))
            got[member] += tokens
            left -= tokens
            ring.spend(member, tokens)
            if ring.deficit(member) == 0:
                ring.pass_on(member)
    rounds = [got[member] / (quantum * weight) for member, weight in members.items()]
    assert max(rounds) - min(rounds) <= 1
