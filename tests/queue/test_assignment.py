"""Which worker gets which job, suspects above all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from longspan.server.queue.assignment import next_assignment
from longspan.server.queue.fair_queue import FairQueue, QueueLimits
from longspan.server.queue.job import JobId
from longspan.server.queue.window import Window
from tests.queue.jobs import job


def _queue(*numbers: int, given_back: tuple[int, ...] = ()) -> FairQueue:
    queue = FairQueue(QueueLimits())
    for number in numbers:
        queue.push(job(number, 10), 0.0)
    for number in given_back:
        queue.push_front(job(number, 10))
    return queue


def _window(*numbers: int) -> Window:
    window = Window(100, 8, 1 << 30)
    for number in numbers:
        window.add(job(number, 10), alone=False)
    return window


def test_the_least_loaded_worker_is_next() -> None:
    windows = {"x": _window(90, 91), "y": _window(92)}
    found = next_assignment(_queue(1), windows, (), 0.0)
    assert found == ("y", (job(1, 10), False))


def test_full_workers_leave_the_queue_alone() -> None:
    queue = _queue(1)
    assert next_assignment(queue, {"x": _window(*range(90, 98))}, (), 0.0) is None
    assert next_assignment(queue, {}, (), 0.0) is None
    assert len(queue) == 1


def test_a_suspect_waits_for_an_empty_worker_while_the_others_go_on() -> None:
    queue = _queue(1, 2, given_back=(7,))
    windows = {"x": _window(90), "y": _window(91, 92)}
    assert next_assignment(queue, windows, [JobId(7)], 0.0) == ("y", (job(1, 10), False))
    windows["x"].release(JobId(90))
    assert next_assignment(queue, windows, [JobId(7)], 0.0) == ("x", (job(7, 10), True))


def test_one_worker_runs_empty_for_a_suspect() -> None:
    queue = _queue(1, given_back=(7,))
    assert next_assignment(queue, {"x": _window(90)}, [JobId(7)], 0.0) is None


@given(
    st.sets(st.integers(0, 9)),
    st.integers(1, 3),
    st.lists(st.integers(0, 30), max_size=60),
)
def test_suspects_run_alone_and_everything_is_given_out(
    suspects: set[int], workers: int, releases: list[int]
) -> None:
    queue = _queue(*range(10, 30), given_back=tuple(range(10)))
    windows = {name: Window(30, 3, 1 << 30) for name in range(workers)}
    accused = [JobId(number) for number in sorted(suspects)]
    seen: list[int] = []
    for pick in [*releases, *range(200)]:
        while (found := next_assignment(queue, windows, accused, 0.0)) is not None:
            worker, (one, alone) = found
            assert alone == (one.job_id in suspects)
            windows[worker].add(one, alone=alone)
            assert not alone or len(windows[worker].jobs) == 1
            seen.append(one.job_id)
        held = [(window, number) for window in windows.values() for number in window.jobs]
        if held:
            window, number = held[pick % len(held)]
            assert window.release(number)
            assert not window.release(number)
    assert sorted(seen) == list(range(30))
    assert all(window.tokens == 0 for window in windows.values())
