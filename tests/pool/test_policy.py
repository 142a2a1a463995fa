"""The pool's pure parts: quarantine, watchdog, backoff, states, standard error."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.server.errors import ConfigError, DocumentQuarantined
from longspan.server.pool.backoff import Backoff
from longspan.server.pool.lifecycle import (
    MOVES,
    Death,
    DeathCause,
    IllegalMove,
    WorkerState,
    moved,
)
from longspan.server.pool.model_info import ModelInfo
from longspan.server.pool.quarantine import KILL, Quarantine
from longspan.server.pool.sockets import SocketDirectory
from longspan.server.pool.stderr_tail import StderrTail
from longspan.server.pool.watchdog import Watchdog
from longspan.server.queue.job import JobId, Subject


def _jobs(*numbers: int) -> dict[JobId, Subject]:
    return {JobId(number): Subject(f"s{number % 3}") for number in numbers}


def test_two_strikes_of_one_job_quarantine_its_subject() -> None:
    quarantine = Quarantine(ttl_s=10.0)
    assert quarantine.struck(_jobs(1, 2, 3), [JobId(1), JobId(2)], 0.0) == set()
    assert list(quarantine.suspects) == [1, 2]
    assert quarantine.struck(_jobs(1), [JobId(1)], 1.0) == {"s1"}
    assert isinstance(quarantine.error(Subject("s1"), 10.9), DocumentQuarantined)
    assert quarantine.error(Subject("s2"), 1.0) is None
    assert quarantine.error(Subject("s1"), 11.0) is None


def test_four_kills_by_hand_weigh_as_much_as_two_crashes() -> None:
    """Somebody who kills workers at random does not condemn a document that was there thrice."""
    quarantine = Quarantine()
    for _ in range(3):
        assert quarantine.struck(_jobs(1), [JobId(1)], 0.0, weight=KILL) == set()
    assert quarantine.struck(_jobs(1), [JobId(1)], 0.0, weight=KILL) == {"s1"}


@pytest.mark.parametrize(
    ("cause", "status", "by_hand"),
    [
        (DeathCause.EXITED, -9, True),
        (DeathCause.STREAM_ENDED, -9, True),
        (DeathCause.EXITED, -6, False),
        (DeathCause.EXITED, 1, False),
        (DeathCause.HUNG, -9, False),
        (DeathCause.SILENT, -9, False),
    ],
)
def test_only_a_kill_that_is_not_ours_is_by_hand(
    cause: DeathCause, status: int, by_hand: bool
) -> None:
    """The server kills what hangs or falls silent, with the same signal."""
    assert Death(cause, status, "").by_hand is by_hand


def test_old_news_accuses_all_that_was_in_flight() -> None:
    quarantine = Quarantine()
    quarantine.struck(_jobs(1, 2), [JobId(9)], 0.0)
    assert list(quarantine.suspects) == [1, 2]


def test_the_oldest_subject_makes_room() -> None:
    quarantine = Quarantine(capacity=2)
    for number in (0, 1, 2):
        for _ in range(2):
            quarantine.struck(_jobs(number), (), 0.0)
    assert [quarantine.error(Subject(f"s{n}"), 0.0) is None for n in range(3)] == [
        True,
        False,
        False,
    ]


jobs_lists = st.lists(st.integers(0, 8), min_size=1, max_size=4, unique=True)


@given(
    st.lists(
        st.tuples(jobs_lists, jobs_lists, st.lists(st.integers(0, 8), max_size=3)), max_size=20
    )
)
def test_only_a_job_struck_twice_without_an_end_between_condemns(
    deaths: list[tuple[list[int], list[int], list[int]]],
) -> None:
    quarantine = Quarantine()
    strikes: dict[int, int] = {}
    for in_flight, running, ended in deaths:
        accused = [n for n in in_flight if n in running] or in_flight
        for number in accused:
            strikes[number] = strikes.get(number, 0) + 1
        guilty = quarantine.struck(_jobs(*in_flight), [JobId(n) for n in running], 0.0)
        assert guilty == {f"s{n % 3}" for n in accused if strikes[n] > 1}
        for number in ended:
            strikes.pop(number, None)
            quarantine.cleared(JobId(number))
        assert set(quarantine.suspects) == set(strikes)


def _watchdog() -> Watchdog:
    return Watchdog(start_timeout_s=10.0, heartbeat_timeout_s=3.0, step_timeout_s=20.0, now=0.0)


def _first_verdict(watchdog: Watchdog, start: float, end: float) -> tuple[float, DeathCause] | None:
    now = start
    while now < end:
        now += watchdog.interval_s
        if (verdict := watchdog.tick(now)) is not None:
            return round(now, 3), verdict
    return None


def test_a_slow_start_is_a_death() -> None:
    verdict = _first_verdict(_watchdog(), 0.0, 30.0)
    assert verdict == (10.5, DeathCause.START_TIMEOUT)


def test_silence_is_a_death() -> None:
    watchdog = _watchdog()
    watchdog.ready(0.0)
    assert _first_verdict(watchdog, 0.0, 2.0) is None
    watchdog.heard(2.0, step=1, busy=False)
    assert _first_verdict(watchdog, 2.0, 30.0) == (5.5, DeathCause.SILENT)


@pytest.mark.parametrize(
    ("steps", "busy", "expected"),
    [("same", True, DeathCause.HUNG), ("same", False, None), ("next", True, None)],
)
def test_only_one_long_step_is_a_hang(steps: str, busy: bool, expected: DeathCause | None) -> None:
    watchdog = _watchdog()
    watchdog.ready(0.0)
    verdicts = set()
    for second in range(40):
        watchdog.heard(second, step=second if steps == "next" else 1, busy=busy)
        verdicts |= {watchdog.tick(second), watchdog.tick(second + 0.5)}
    assert verdicts == {None} | ({expected} if expected else set())


def test_a_server_that_stood_still_does_not_blame_the_worker() -> None:
    watchdog = _watchdog()
    watchdog.ready(0.0)
    assert watchdog.tick(0.5) is None
    assert watchdog.tick(25.0) is None
    assert _first_verdict(watchdog, 25.0, 60.0) is not None


def test_backoff_doubles_to_its_limit_and_starts_over_after_a_healthy_life() -> None:
    backoff = Backoff(first_s=0.1, longest_s=1.0, healthy_s=30.0)
    assert [backoff.delay_s(1.0) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert [backoff.delay_s(31.0), backoff.delay_s(1.0)] == [0.1, 0.2]


def test_a_kill_by_hand_sets_nobody_apart() -> None:
    """The second one does, as a crash does at once; an end forgets them."""
    quarantine = Quarantine()
    jobs = {JobId(1): Subject("a"), JobId(2): Subject("b")}
    quarantine.struck(jobs, [JobId(1)], 0.0, weight=KILL)
    assert list(quarantine.suspects) == []
    quarantine.struck(jobs, [JobId(1)], 0.0, weight=KILL)
    assert list(quarantine.suspects) == [1]
    quarantine.cleared(JobId(1))
    assert list(quarantine.suspects) == []


def model(**sizes: int) -> ModelInfo:
    """A decoder."""
    return ModelInfo("m", "f", "float32", 0, sizes["max_tokens"], "cpu", sizes["kv_tokens"])


def test_a_decoder_may_come_back_with_another_size_but_not_as_another_model() -> None:
    """Its pages follow from the memory that was free; the smallest counts for all."""
    first, second = model(max_tokens=900, kv_tokens=1000), model(max_tokens=800, kv_tokens=700)
    assert first.answers_like(second)
    assert first.least(second) == model(max_tokens=800, kv_tokens=700)
    encoder, other = model(max_tokens=512, kv_tokens=0), model(max_tokens=256, kv_tokens=0)
    assert not encoder.answers_like(other)


@given(st.sampled_from(WorkerState), st.sampled_from(WorkerState))
def test_moves_outside_the_table_raise(state: WorkerState, to: WorkerState) -> None:
    if to in MOVES[state]:
        assert moved(state, to) is to
    else:
        with pytest.raises(IllegalMove):
            moved(state, to)


@pytest.mark.parametrize(
    ("cause", "status", "final"),
    [
        (DeathCause.EXITED, 3, True),
        (DeathCause.STREAM_ENDED, 3, True),
        (DeathCause.REFUSED, -9, True),
        (DeathCause.STOPPED, 3, False),
        (DeathCause.EXITED, 1, False),
        (DeathCause.SILENT, -9, False),
    ],
)
def test_only_a_model_that_cannot_be_served_is_final(
    cause: DeathCause, status: int, final: bool
) -> None:
    assert Death(cause, status, "").final is final


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), min_size=1))
def test_the_tail_splits_lines_however_the_bytes_arrive(data: bytes, sizes: list[int]) -> None:
    data = data.replace(b"\r", b"")
    tail, whole = StderrTail(lines=3), StderrTail(lines=3)
    lines: list[str] = []
    at = 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        lines += tail.feed(data[at : at + size])
        at += size
    assert lines == whole.feed(data)
    assert tail.last() == whole.last()


def test_the_tail_is_bounded() -> None:
    tail = StderrTail(lines=2, line_bytes=5)
    assert tail.feed(b"123456789\nabc\n") == ["12345", "abc"]
    for _ in range(100):
        tail.feed(b"x" * 1000)
    assert tail.last() == "xxxxx"


def test_the_socket_directory_is_private_and_never_repeats_a_path(tmp_path: Path) -> None:
    sockets = SocketDirectory(None)
    assert sockets.path.stat().st_mode & 0o777 == 0o700
    assert sockets.new_path() != sockets.new_path()
    sockets.remove()
    assert not sockets.path.exists()
    long = tmp_path / ("x" * 100)
    long.mkdir()
    with pytest.raises(ConfigError, match="too long for a socket"):
        SocketDirectory(long)
    assert list(long.iterdir()) == []
