"""Promises of the fair queue: order, bounds, conservation, limits."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.server.errors import QueueFull
from longspan.server.identity import Tenant
from longspan.server.queue.drain_rate import DrainRate
from longspan.server.queue.fair_queue import FairQueue, QueueLimits
from longspan.server.queue.job import FlowKey, Job, JobId, Priority, SizeClass
from tests.queue.jobs import (
    FLOWS,
    LARGEST,
    TENANTS,
    costs,
    flows,
    job,
    naive_order,
    starvation_bound,
    tenants,
)

QUANTUM = 100
WIDE = QueueLimits(tokens=10**9, jobs=10**6, tenant_share=1.0, quantum_tokens=QUANTUM)


def _popped(queue: FairQueue) -> list[Job]:
    popped: list[Job] = []
    while (one := queue.pop(0.0)) is not None:
        popped.append(one)
    return popped


@given(st.lists(st.tuples(costs, tenants, flows), max_size=60))
def test_a_fixed_backlog_is_served_in_the_papers_order(
    backlog: list[tuple[int, Tenant, FlowKey]],
) -> None:
    queue = FairQueue(WIDE)
    jobs = [job(number, *of) for number, of in enumerate(backlog)]
    for one in jobs:
        queue.push(one, 0.0)
    foretold = queue.order()
    popped = _popped(queue)
    assert popped == naive_order(jobs, QUANTUM)
    assert [one.job_id for one in popped] == foretold
    assert (len(queue), queue.tokens) == (0, 0)


@given(
    st.lists(costs, max_size=5),
    costs,
    flows,
    st.lists(st.tuples(costs, tenants, flows), max_size=40),
    st.lists(st.tuples(costs, tenants, flows), min_size=1, max_size=20),
)
def test_no_job_starves_whatever_else_arrives(
    ahead: list[int],
    cost: int,
    flow: FlowKey,
    backlog: list[tuple[int, Tenant, FlowKey]],
    arrivals: list[tuple[int, Tenant, FlowKey]],
) -> None:
    queue = FairQueue(WIDE)
    numbers = itertools.count(1)
    others = [of for of in backlog if of[1:] != ("a", flow)]
    for of in [*others, *((tokens, Tenant("a"), flow) for tokens in ahead)]:
        queue.push(job(next(numbers), *of), 0.0)
    queue.push(job(0, cost, "a", flow), 0.0)
    bound = starvation_bound(sum(ahead) + cost, flow, QUANTUM, len(TENANTS))
    served = 0
    endless = itertools.cycle(arrivals)
    while (one := queue.pop(0.0)) is not None and one.job_id != 0:
        served += one.cost_tokens
        assert served <= bound
        for of in itertools.islice(endless, 2):
            queue.push(job(next(numbers), *of), 0.0)


@given(st.lists(costs, min_size=80, max_size=80), st.lists(costs, min_size=80, max_size=80))
def test_two_backlogged_tenants_differ_by_less_than_a_quantum_and_a_job(
    first: list[int], second: list[int]
) -> None:
    queue = FairQueue(WIDE)
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        queue.push(job(2 * number, a, "a"), 0.0)
        queue.push(job(2 * number + 1, b, "b"), 0.0)
    left = Counter({"a": 80, "b": 80})
    served = Counter({"a": 0, "b": 0})
    while min(left.values()) > 1:
        one = queue.pop(0.0)
        assert one is not None
        left[one.tenant] -= 1
        served[one.tenant] += one.cost_tokens
        assert abs(served["a"] - served["b"]) < QUANTUM + LARGEST


def test_a_tenant_with_many_flows_gets_no_more_than_one_with_one() -> None:
    queue = FairQueue(WIDE)
    for number in range(900):
        queue.push(job(number, 50, "greedy", FLOWS[number % 9]), 0.0)
        queue.push(job(1000 + number, 50, "modest"), 0.0)
    served = Counter(queue.pop(0.0).tenant for _ in range(400))  # type: ignore[union-attr]
    assert abs(served["greedy"] - served["modest"]) <= 3


def test_priorities_share_a_tenant_four_to_two_to_one() -> None:
    queue = FairQueue(WIDE)
    for number in range(900):
        for offset, priority in enumerate(Priority):
            flow = (SizeClass.SHORT, priority)
            queue.push(job(3 * number + offset, 50, "a", flow), 0.0)
    popped = [queue.pop(0.0) for _ in range(700)]
    served = Counter(one.priority for one in popped if one is not None)
    assert served == {Priority.INTERACTIVE: 400, Priority.NORMAL: 200, Priority.BATCH: 100}


operations = st.lists(
    st.one_of(
        st.tuples(st.just("push"), costs, tenants, flows, st.none() | st.integers(0, 30)),
        st.tuples(st.just("pop")),
        st.tuples(st.just("give back")),
        st.tuples(st.just("remove"), st.integers(0, 40)),
        st.tuples(st.just("wait"), st.integers(1, 5)),
    ),
    max_size=80,
)


@given(operations)
def test_every_job_leaves_exactly_once(script: list[tuple[object, ...]]) -> None:
    queue = FairQueue(WIDE)
    waiting: dict[JobId, Job] = {}
    now = 0
    for number, (name, *rest) in enumerate(script):
        left: list[Job] = []
        if name == "push":
            cost, tenant, flow, deadline = rest
            one = job(number, cost, tenant, flow, deadline)  # type: ignore[arg-type]
            queue.push(one, now)
            waiting[one.job_id] = one
        elif name == "wait":
            now += rest[0]  # type: ignore[operator]
            left = queue.expire(now)
            late = {i for i, one in waiting.items() if (one.deadline_s or now + 1) <= now}
            late |= {i for i, one in waiting.items() if one.deadline_s == 0}
            assert {one.job_id for one in left} == late
        elif name == "remove":
            removed = queue.remove(JobId(rest[0]))  # type: ignore[arg-type]
            assert (removed is not None) == (rest[0] in waiting)
            left = [removed] if removed is not None else []
        else:
            popped = queue.pop(now)
            assert (popped is None) == (not waiting)
            if popped is not None and name == "give back":
                queue.push_front(popped)
                assert queue.order()[0] == popped.job_id
            elif popped is not None:
                left = [popped]
        for one in left:
            assert waiting.pop(one.job_id) == one
        assert len(queue) == len(waiting)
        assert queue.tokens == sum(one.cost_tokens for one in waiting.values())
        assert set(queue.order()) == set(waiting)
    assert {one.job_id for one in _popped(queue)} == set(waiting)


def test_jobs_given_back_go_first_and_can_be_passed_over() -> None:
    queue = FairQueue(WIDE)
    for number in range(4):
        queue.push(job(number), 0.0)
    first, second = queue.pop(0.0), queue.pop(0.0)
    assert first is not None
    assert second is not None
    queue.push_front(second)
    queue.push_front(first)
    assert queue.order() == [0, 1, 2, 3]
    assert queue.position(JobId(3)) == 3
    assert queue.position(JobId(9)) is None
    assert queue.pop(0.0, pass_over={JobId(0), JobId(1)}) == job(2)
    assert queue.pop(0.0, pass_over={JobId(0)}) == job(1)
    assert queue.pop(0.0) == job(0)


def test_a_job_cannot_wait_twice() -> None:
    queue = FairQueue(WIDE)
    queue.push(job(1), 0.0)
    with pytest.raises(ValueError, match="waits already"):
        queue.push_front(job(1))


def test_a_full_queue_says_when_it_will_have_drained() -> None:
    queue = FairQueue(QueueLimits(tokens=1000, jobs=100, tenant_share=1.0))
    numbers = itertools.count()
    for second in range(100):
        queue.push(job(next(numbers), 200), second)
        queue.pop(second)
    for _ in range(10):
        queue.push(job(next(numbers), 100), 100)
    with pytest.raises(QueueFull) as refused:
        queue.push(job(next(numbers), 400), 100)
    assert refused.value.retry_after_s == pytest.approx(2.0, rel=0.15)


def test_one_tenant_cannot_take_the_whole_queue() -> None:
    queue = FairQueue(QueueLimits(tokens=100, jobs=10, tenant_share=0.5))
    queue.push(job(0, 50, "a"), 0.0)
    with pytest.raises(QueueFull):
        queue.push(job(1, 1, "a"), 0.0)
    for number in range(2, 7):
        queue.push(job(number, 1, "b"), 0.0)
    with pytest.raises(QueueFull):
        queue.push(job(7, 1, "b"), 0.0)
    queue.push(job(8, 45, "c"), 0.0)
    with pytest.raises(QueueFull):
        queue.push(job(9, 1, "d"), 0.0)


def test_deadlines_of_jobs_that_left_are_forgotten() -> None:
    queue = FairQueue(WIDE)
    for number in range(10_000):
        queue.push(job(number, deadline_s=1e9), 0.0)
        queue.pop(0.0)
    assert len(queue._deadlines) <= 65


def test_limits_that_admit_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="not a usable queue"):
        QueueLimits(tenant_share=0.0)
    with pytest.raises(ValueError, match="at least one token"):
        job(1, 0)


def test_a_steady_drain_is_measured_and_an_old_one_forgotten() -> None:
    rate = DrainRate(time_constant_s=10.0)
    assert rate.seconds_for(1, 0.0) == 60.0
    for tenth in range(1000):
        rate.record(100, tenth / 10)
    assert rate.tokens_per_s(100.0) == pytest.approx(1000, rel=0.02)
    assert rate.seconds_for(1, 100.0) == 0.1
    assert rate.tokens_per_s(200.0) < 1
