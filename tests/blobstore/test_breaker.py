"""Every state of the breaker, with everything that can happen in it."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.blobstore.breaker import (
    TRANSITIONS,
    Breaker,
    BreakerLimits,
    Event,
    Permit,
    State,
)

LIMITS = BreakerLimits(failures=3, slow_s=0.5, pause_s=1.0, longest_pause_s=5.0)


def in_state(state: State, *, failures: int = 0) -> tuple[Breaker, float]:
    """A breaker in a state, and the time."""
    breaker = Breaker(LIMITS)
    for _ in range(failures if state is State.CLOSED else LIMITS.failures):
        breaker.failed(permit(breaker, 0.0), 0.0)
    if state is State.HALF_OPEN:
        permit(breaker, 1.0)
        assert state_of(breaker) is state
        return breaker, 1.0
    assert state_of(breaker) is state
    return breaker, 0.0


def state_of(breaker: Breaker) -> State:
    return breaker.state


def permit(breaker: Breaker, now: float) -> Permit:
    given = breaker.admit(now)
    assert given is not None
    return given


def test_the_table_has_no_other_moves() -> None:
    possible = set(product(State, Event))
    never = {
        (State.OPEN, Event.GOOD),  # nothing runs, and what ran before is not asked
        (State.OPEN, Event.BAD),
        (State.OPEN, Event.LAST_STRAW),
        (State.CLOSED, Event.PAUSE_OVER),
        (State.HALF_OPEN, Event.LAST_STRAW),
    }
    assert set(TRANSITIONS) == possible - never


@pytest.mark.parametrize("failures", [0, 1, 2])
@pytest.mark.parametrize("ends", ["well", "badly", "slowly"])
def test_closed(failures: int, ends: str) -> None:
    breaker, now = in_state(State.CLOSED, failures=failures)
    leave = permit(breaker, now)
    if ends == "badly":
        breaker.failed(leave, now)
    else:
        breaker.succeeded(leave, now + (0.6 if ends == "slowly" else 0.5))
    opens = ends != "well" and failures == 2
    assert state_of(breaker) is (State.OPEN if opens else State.CLOSED)


def test_only_failures_in_a_row_count() -> None:
    breaker, now = in_state(State.CLOSED, failures=2)
    breaker.succeeded(permit(breaker, now), now)
    for _ in range(2):
        breaker.failed(permit(breaker, now), now)
    assert state_of(breaker) is State.CLOSED
    breaker.failed(permit(breaker, now), now)
    assert state_of(breaker) is State.OPEN


@pytest.mark.parametrize(("now", "state"), [(0.99, State.OPEN), (1.0, State.HALF_OPEN)])
def test_open_until_the_pause_is_over(now: float, state: State) -> None:
    breaker, _ = in_state(State.OPEN)
    assert (breaker.admit(now) is not None) == (state is State.HALF_OPEN)
    assert state_of(breaker) is state


@pytest.mark.parametrize("state", [State.OPEN, State.HALF_OPEN])
@pytest.mark.parametrize("good", [True, False])
def test_late_ends_of_earlier_operations_change_nothing(state: State, good: bool) -> None:
    breaker = Breaker(LIMITS)
    late = permit(breaker, 0.0)
    for _ in range(LIMITS.failures):
        breaker.failed(permit(breaker, 0.0), 0.0)
    if state is State.HALF_OPEN:
        permit(breaker, 1.0)
    (breaker.succeeded if good else breaker.failed)(late, 0.1)
    assert state_of(breaker) is state
    assert breaker.admit(1.0) is None or state is State.OPEN


@pytest.mark.parametrize("ends", ["well", "badly", "slowly"])
def test_half_open(ends: str) -> None:
    breaker, _ = in_state(State.OPEN)
    probe = permit(breaker, 1.0)
    assert breaker.admit(1.5) is None  # one only
    if ends == "badly":
        breaker.failed(probe, 1.5)
    else:
        breaker.succeeded(probe, 1.7 if ends == "slowly" else 1.5)
    assert state_of(breaker) is (State.CLOSED if ends == "well" else State.OPEN)
    assert (breaker.admit(1.8) is not None) == (ends == "well")


def test_what_had_nothing_to_do_proves_nothing() -> None:
    breaker, now = in_state(State.CLOSED, failures=2)
    breaker.ended(permit(breaker, now), now)
    breaker.failed(permit(breaker, now), now)
    assert state_of(breaker) is State.OPEN, "it did not count among the failures in a row"
    probe = permit(breaker, now + 1.0)
    assert breaker.admit(now + 1.0) is None
    breaker.ended(probe, now + 1.0)
    assert state_of(breaker) is State.HALF_OPEN
    breaker.succeeded(permit(breaker, now + 1.0), now + 1.0)
    assert state_of(breaker) is State.CLOSED
    slow = permit(breaker, now + 1.0)
    for _ in range(LIMITS.failures - 1):
        breaker.failed(permit(breaker, now + 1.0), now + 1.0)
    breaker.ended(slow, now + 1.6)
    assert state_of(breaker) is State.OPEN


def test_a_probe_that_never_ends_is_followed_by_another() -> None:
    breaker, _ = in_state(State.OPEN)
    lost = permit(breaker, 1.0)
    assert breaker.admit(1.9) is None
    probe = permit(breaker, 2.0)
    breaker.failed(lost, 2.1)
    assert state_of(breaker) is State.HALF_OPEN
    breaker.succeeded(probe, 2.2)
    assert state_of(breaker) is State.CLOSED


def test_the_pause_doubles_up_to_a_cap_and_begins_again() -> None:
    breaker, now = in_state(State.OPEN)
    for pause in (1.0, 2.0, 4.0, 5.0, 5.0):
        assert breaker.admit(now + pause - 0.01) is None
        probe = permit(breaker, now + pause)
        now += pause
        breaker.failed(probe, now)
    breaker.succeeded(permit(breaker, now + 5.0), now + 5.0)
    for _ in range(LIMITS.failures):
        breaker.failed(permit(breaker, now + 5.0), now + 5.0)
    assert breaker.admit(now + 5.9) is None
    assert breaker.admit(now + 6.0) is not None


ENDS = {"good": Breaker.succeeded, "bad": Breaker.failed, "nothing": Breaker.ended}


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from([*ENDS, "admit", "lost"]))))
def test_no_history_leaves_the_table_or_shuts_for_ever(
    steps: list[tuple[float, str]],
) -> None:
    breaker, now, permits = Breaker(LIMITS), 0.0, list[Permit]()
    for wait, step in steps:
        now += wait
        if step == "admit":
            leave = breaker.admit(now)
            permits += [leave] if leave is not None else []
        elif permits:
            leave = permits.pop(0)
            if step != "lost":
                ENDS[step](breaker, leave, now)
    assert breaker.admit(now + LIMITS.longest_pause_s) is not None
