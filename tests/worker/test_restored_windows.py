"""Pages that come back for layers that forget: what they take of the pool, and what stays free."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longspan.worker.attention.policy import FULL, ModelPolicy
from longspan.worker.generation.outcomes import Refused, SequenceFinished
from longspan.worker.generation.plan import SequenceId
from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.pages import PageTable
from longspan.worker.kv.room import Room
from tests.worker.scheduling import PAGE_TOKENS, finished, spec, step, text
from tests.worker.test_below import PAGE_S, Machine
from tests.worker.test_generation_policies import HELD, WINDOW, grouped_output

FAR = ModelPolicy("far", (FULL, WINDOW, FULL))
SIZES = (1, 3, 0)
"""Frames of a page: in what keeps everything, in what forgets, in what a page's number finds."""
PAGES = 8
MOST = PAGES * 4 - 3 * HELD
"""Pages of the longest sequence: of the layers that forget it holds so many at most."""
TASK = 3


def asked(machine: Machine, number: int, pages: int, seed: int = 7) -> SequenceFinished:
    """The end of a short answer behind a document of so many pages."""
    tokens = text(pages * PAGE_TOKENS + TASK, seed)
    machine.scheduler.open(spec(number, tokens, policy=FAR, groups=(0, 1, 2)), 0.0)
    return finished(machine.finish())[SequenceId(number)]


@pytest.mark.parametrize("numbers", [None, 12], ids=["frames", "numbers"])
def test_whatever_could_be_read_comes_back(numbers: int | None) -> None:
    """However long it is: the last page of the longest one has the task."""
    most = numbers or MOST
    for pages in range(1, most):
        machine = Machine(pages=PAGES, sizes=SIZES, numbers=numbers or 2 * MOST)
        asked(machine, 1, pages)
        machine.restart()
        assert asked(machine, 2, pages).cached_tokens == pages * PAGE_TOKENS
        assert machine.model.output[SequenceId(2)] == machine.model.output[SequenceId(1)]
    with pytest.raises(Refused):
        asked(machine, 3, most)


def test_it_takes_the_place_of_another_document() -> None:
    machine = Machine(pages=PAGES, sizes=SIZES, numbers=2 * MOST)
    for number in range(4):
        pages = asked(machine, number, MOST - 1, seed=number % 2).cached_tokens // PAGE_TOKENS
        assert pages == (MOST - 1 if number >= 2 else 0)
        assert (
            machine.model.output[SequenceId(number)] == machine.model.output[SequenceId(number % 2)]
        )


@pytest.mark.parametrize("others", [1, 3])
def test_what_does_not_fit_beside_others_is_not_waited_for(others: int) -> None:
    """Two parts that are seen of 8 pages, and one page more, fit beside one page and not three."""
    machine = Machine(pages=PAGES, sizes=SIZES, numbers=2 * MOST)
    asked(machine, 1, 8)
    machine.restart()
    other = spec(2, others * PAGE_TOKENS - 1, policy=FAR, groups=(0, 1, 2), max_tokens=9)
    machine.scheduler.open(other, 0.0)
    step(machine.scheduler, machine.model)
    assert machine.scheduler.memory.free == PAGES - others
    tokens = text(8 * PAGE_TOKENS + TASK, 7)
    machine.scheduler.open(spec(3, tokens, policy=FAR, groups=(0, 1, 2)), 0.0)
    machine.scheduler.plan(0.0)
    assert machine.below.restoring == ({SequenceId(3): 8} if others == 1 else {})


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
@example(seed=3483)  # of one page some parts lie in the pool only and others below only
def test_whatever_else_comes_back_answers_stay_and_pages_add_up(seed: int) -> None:
    """Few frames or few numbers for many sequences, over tiers that a restart leaves full."""
    rng = random.Random(seed)
    machine = Machine(
        pages=rng.randint(10, 20),
        sizes=SIZES,
        load_s=rng.choice([0.0, PAGE_S]),
        numbers=rng.randint(20, 60),
    )
    lengths = [rng.randint(1, 130) for _ in range(rng.randint(2, 8))]
    for number, length in enumerate(lengths):
        prompt = text(length, seed=number % 3)
        machine.scheduler.open(spec(number, prompt, policy=FAR, groups=(0, 1, 2)), 0.0)
        for _ in range(rng.randint(0, 12)):
            machine.tiers.work(rng.randint(0, 5))
            step(machine.scheduler, machine.model)
        if rng.random() < 0.4:
            machine.finish(moves=rng.randint(1, 20))
            machine.restart()
    machine.finish(moves=rng.randint(1, 20))
    assert machine.scheduler.memory.free == machine.scheduler.memory.total
    assert machine.below.holds() == []
    for number, length in enumerate(lengths):
        expected = grouped_output(text(length, seed=number % 3), 4)
        assert machine.model.output[SequenceId(number)] == expected


def key(number: int) -> PageKey:
    """A page key."""
    return PageKey(bytes([number]) * 32)


def test_a_part_takes_its_frames_and_a_page_its_number() -> None:
    """Held parts take nothing more, cached ones what they no longer leave to others."""
    table = PageTable(40, SIZES, pages=20)
    assert table.room == Room(40, 20)
    assert table.taking(key(1), (0, 2)) == Room(1, 1)
    assert table.taking(key(1), (0, 1, 2)) == Room(4, 1)
    (page,) = table.allocate(1)
    table.register(page, key(1))
    assert table.room == Room(36, 19)
    assert table.taking(key(1), (0, 1, 2)) == Room(0, 0)
    table.release([page], (1,))
    assert table.taking(key(1), (0, 1, 2)) == Room(3, 0)
    assert table.taking(key(1), (0, 2)) == Room(0, 0)
    table.release([page], (0, 2))
    assert table.taking(key(1), (0, 1, 2)) == Room(4, 1)
    assert table.taking(key(1), (0, 2)) == Room(1, 1)


@given(
    held=st.lists(st.tuples(st.integers(0, 4), st.sets(st.integers(0, 2))), max_size=6),
    groups=st.sets(st.integers(0, 2), min_size=1),
    wanted=st.integers(0, 4),
)
def test_what_is_taken_is_gone_of_the_room(
    held: list[tuple[int, set[int]]], groups: set[int], wanted: int
) -> None:
    """Whichever parts are cached, held or nowhere."""
    table = PageTable(40, SIZES, pages=20)
    for number, kept in held:
        (page,) = table.allocate(1)
        table.register(page, key(number))
        table.release([page], set(table.groups) - kept)
    before, taken = table.room, table.taking(key(wanted), groups)
    if table.hold(key(wanted), groups) is None:
        (page,) = table.allocate(1)
        table.release([page], set(table.groups) - groups)
    assert table.room == before.without(taken)
    assert before.without(taken) + taken == before


@given(
    takes=st.lists(st.builds(Room, st.integers(0, 5), st.integers(0, 1)), max_size=20),
    room=st.builds(Room, st.integers(0, 30), st.integers(0, 10)),
)
def test_as_many_fit_as_both_frames_and_numbers_allow(takes: list[Room], room: Room) -> None:
    count = room.first(takes)
    assert sum(one.frames for one in takes[:count]) <= room.frames
    assert sum(one.numbers for one in takes[:count]) <= room.numbers
    more = takes[: count + 1]
    over = sum(one.frames for one in more) > room.frames
    assert count == len(takes) or over or sum(one.numbers for one in more) > room.numbers
