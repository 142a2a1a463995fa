"""The scheduler under attention policies: what is dropped, where chunks end, what is shared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.policy import FULL, FULL_MODEL, Kind, LayerPolicy, ModelPolicy
from longspan.worker.generation.outcomes import Refused
from longspan.worker.generation.plan import SequenceId
from longspan.worker.generation.scheduler import Scheduler
from tests.worker.scheduling import (
    PAGE_TOKENS,
    ToyModel,
    finish,
    finished,
    make_scheduler,
    next_token,
    spec,
    step,
    text,
)

WINDOW = LayerPolicy(kind=Kind.WINDOW, prefix_pages=1, window_pages=2)
HYBRID = LayerPolicy(
    kind=Kind.HYBRID, prefix_pages=1, window_pages=1, selected_pages=2, dense_pages=4
)
DROPPING = ModelPolicy("window", (WINDOW, WINDOW))
SELECTING = ModelPolicy("hybrid", (FULL, HYBRID))
HELD = WINDOW.prefix_pages + WINDOW.window_pages + 2
ONE = SequenceId(1)


def windowed_output(prompt: npt.NDArray[np.uint32], tokens: int) -> list[int]:
    """What the toy model writes when it sees the first page and the last ones only."""
    context = prompt
    for _ in range(tokens):
        pages = np.arange(len(context)) // PAGE_TOKENS
        last = (len(context) - 1) // PAGE_TOKENS
        seen = (pages < WINDOW.prefix_pages) | (pages >= last - WINDOW.window_pages)
        context = np.append(context, np.uint32(next_token(context[seen])))
    return [int(token) for token in context[len(prompt) :]]


def test_a_window_holds_a_bounded_number_of_pages() -> None:
    """A text of 250 pages goes through 20, and its answer is the windowed one."""
    scheduler, model = make_scheduler(pages=20), ToyModel()
    prompt = text(2000)
    scheduler.open(spec(1, prompt, policy=DROPPING, max_tokens=30), 0.0)
    held = []
    while not scheduler.idle:
        step(scheduler, model)
        held.append(used(scheduler))
    assert max(held) <= 20
    assert held[-1] == 0
    assert model.output[ONE] == windowed_output(prompt, 30)


def used(scheduler: Scheduler) -> int:
    """Pages that some sequence holds."""
    return scheduler.memory.total - scheduler.memory.free


def test_decoding_behind_a_window_holds_no_more_than_it_sees() -> None:
    """Pages that leave the window are given up as the answer grows."""
    scheduler, model = make_scheduler(pages=100), ToyModel()
    scheduler.open(spec(1, 400, policy=DROPPING, max_tokens=100), 0.0)
    while scheduler.waiting:
        step(scheduler, model)
    for _ in range(90):
        step(scheduler, model)
        assert used(scheduler) <= HELD


def test_a_second_question_goes_on_where_the_window_still_is() -> None:
    """The middle of the document was given to others; nothing of it is needed again."""
    scheduler, model = make_scheduler(pages=12), ToyModel()
    document = text(60 * PAGE_TOKENS)
    answers = {}
    for number in (1, 2):
        prompt = np.concatenate((document, text(10, seed=number)))
        scheduler.open(spec(number, prompt, policy=DROPPING), 0.0)
        end = finished(finish(scheduler, model))[SequenceId(number)]
        answers[number] = end.cached_tokens
        assert model.output[SequenceId(number)] == windowed_output(prompt, 4)
    assert answers == {1: 0, 2: 60 * PAGE_TOKENS}


def test_policies_share_no_pages() -> None:
    """The caller gives each policy a key space of its own; here both are the same by mistake."""
    assert DROPPING.identity() != SELECTING.identity() != ModelPolicy().identity()
    assert ModelPolicy("x", (FULL, FULL)).identity() == ModelPolicy().identity()


@settings(max_examples=30, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 90), min_size=1, max_size=8),
    task=st.integers(1, 40),
    budget=st.sampled_from([3, 8, 20, 64, 300]),
    beside=st.booleans(),
)
def test_chunks_of_a_selecting_sequence_end_at_pages(
    pieces: list[int], task: int, budget: int, beside: bool
) -> None:
    """However it arrives: at pages once they select, at the task, and anywhere behind it."""
    scheduler, model = make_scheduler(budget_tokens=budget), ToyModel()
    ends: list[int] = []
    document = sum(pieces)
    if beside:
        scheduler.open(spec(2, 50, max_tokens=60), 0.0)
    scheduler.open(spec(1, text(0), sealed=False, policy=SELECTING), 0.0)
    for number, piece in enumerate(pieces):
        scheduler.append(ONE, text(piece, seed=number), seal=False)
        watch(scheduler, model, ends)
    scheduler.append(ONE, text(task, seed=99), seal=True, task_start=document)
    for _ in range(1000):
        if ONE not in scheduler:
            break
        watch(scheduler, model, ends)
    assert ONE not in scheduler
    dense = HYBRID.dense_pages * PAGE_TOKENS
    assert all(end <= dense or end % PAGE_TOKENS == 0 or end >= document for end in ends)
    prompt = [text(piece, seed=number) for number, piece in enumerate(pieces)]
    whole = np.concatenate([*prompt, text(task, seed=99)])
    assert model.output[ONE][0] == next_token(whole)


def watch(scheduler: Scheduler, model: ToyModel, ends: list[int]) -> None:
    """A step; where the first sequence's chunk ended."""
    plan = scheduler.plan(0.0)
    scheduler.outcomes()
    if plan is None:
        return
    ends += [chunk.end for chunk in plan.chunks if chunk.sequence_id == ONE]
    scheduler.commit(plan, model.run(plan))
    scheduler.check()


def test_a_page_with_a_task_in_it_is_another_page() -> None:
    """The same tokens as a document and as a task: the task's queries saw everything."""
    scheduler, model = make_scheduler(), ToyModel()
    tokens = text(100)
    cached = {}
    for number, task_start in ((1, 40), (2, 100), (3, 40)):
        scheduler.open(spec(number, tokens, policy=SELECTING, task_start=task_start), 0.0)
        end = finished(finish(scheduler, model))[SequenceId(number)]
        cached[number] = end.cached_tokens
    assert cached == {1: 0, 2: 40, 3: 96}


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    pages=st.integers(8, 30),
    budget=st.sampled_from([5, 16, 64]),
)
def test_windows_under_pressure_complete_undisturbed(
    sizes: list[int], pages: int, budget: int
) -> None:
    """Few pages for many sequences: preempted or not, every answer is the windowed one."""
    scheduler, model = make_scheduler(pages=pages, budget_tokens=budget), ToyModel()
    for number, size in enumerate(sizes):
        scheduler.open(spec(number, text(size, seed=number), policy=DROPPING), 0.0)
    ends = finished(finish(scheduler, model))
    assert len(ends) == len(sizes)
    for number, size in enumerate(sizes):
        expected = windowed_output(text(size, seed=number), 4)
        assert model.output[SequenceId(number)] == expected


def test_a_window_is_read_in_whole_steps_however_deep_it_is() -> None:
    """Its attention costs the same everywhere; a full one's chunks get smaller."""
    chunks: dict[str, int] = {}
    for name, policy in (("full", FULL_MODEL), ("window", DROPPING)):
        scheduler, model = make_scheduler(pages=2000, parity_tokens=64), ToyModel()
        scheduler.open(spec(1, 8000, policy=policy), 0.0)
        while plan := scheduler.plan(0.0):
            chunks[name] = len(plan.chunks[0].tokens) if scheduler.waiting else chunks[name]
            scheduler.outcomes()
            scheduler.commit(plan, model.run(plan))
    assert chunks["window"] == 64
    assert chunks["full"] < 20


GROUPED = ModelPolicy("grouped", (FULL, WINDOW))
SIZES = (1, 3)
"""Frames of a page: one layer that sees everything beside three that see a window."""


def grouped_output(prompt: npt.NDArray[np.uint32], tokens: int) -> list[int]:
    """What the toy model writes when one frame is seen whole and three through a window."""
    context = prompt
    for _ in range(tokens):
        pages = np.arange(len(context)) // PAGE_TOKENS
        last = (len(context) - 1) // PAGE_TOKENS
        seen = (pages < WINDOW.prefix_pages) | (pages >= last - WINDOW.window_pages)
        read = np.concatenate((context, *[context[seen]] * 3))
        context = np.append(context, np.uint32(next_token(read)))
    return [int(token) for token in context[len(prompt) :]]


def test_layers_behind_a_window_give_their_part_of_a_page_up() -> None:
    """A text of 250 pages needs 250 frames for one layer, and few for the three others."""
    pages = (250 + HELD * 3) // 4 + 4
    scheduler, model = make_scheduler(pages=pages, sizes=SIZES), ToyModel(sizes=SIZES)
    prompt = text(2000)
    scheduler.open(spec(1, prompt, policy=GROUPED, groups=(0, 1), max_tokens=30), 0.0)
    finish(scheduler, model)
    assert model.output[ONE] == grouped_output(prompt, 30)


def test_a_text_too_long_even_for_what_is_kept_is_refused() -> None:
    """And one that is not is read."""
    frames = 250 + HELD * 3
    for pages, refused in ((frames // 4 - 1, True), (frames // 4 + 2, False)):
        scheduler = make_scheduler(pages=pages, sizes=SIZES)
        prompt = spec(1, 2000, policy=GROUPED, groups=(0, 1))
        if refused:
            with pytest.raises(Refused):
                scheduler.open(prompt, 0.0)
        else:
            scheduler.open(prompt, 0.0)


def test_a_second_question_finds_what_each_group_still_needs() -> None:
    """The windows' parts of the document's middle were given to others."""
    scheduler, model = make_scheduler(pages=40, sizes=SIZES), ToyModel(sizes=SIZES)
    document = text(60 * PAGE_TOKENS)
    cached = {}
    for number in (1, 2):
        prompt = np.concatenate((document, text(10, seed=number)))
        scheduler.open(spec(number, prompt, policy=GROUPED, groups=(0, 1)), 0.0)
        cached[number] = finished(finish(scheduler, model))[SequenceId(number)].cached_tokens
        assert model.output[SequenceId(number)] == grouped_output(prompt, 4)
    assert cached == {1: 0, 2: 60 * PAGE_TOKENS}


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    alike=st.booleans(),
    pages=st.integers(18, 40),
    budget=st.sampled_from([5, 16, 64]),
)
def test_groups_under_pressure_complete_undisturbed(
    sizes: list[int], alike: bool, pages: int, budget: int
) -> None:
    """Few frames for many sequences, of grouped and of full policies, with shared beginnings."""
    scheduler = make_scheduler(pages=pages, budget_tokens=budget, sizes=SIZES)
    model = ToyModel(sizes=SIZES)
    prompts = [text(size, seed=0 if alike else number) for number, size in enumerate(sizes)]
    for number, prompt in enumerate(prompts):
        scheduler.open(spec(number, prompt, policy=GROUPED, groups=(0, 1)), 0.0)
    assert len(finished(finish(scheduler, model))) == len(sizes)
    for number, prompt in enumerate(prompts):
        assert model.output[SequenceId(number)] == grouped_output(prompt, 4)


FORGETTING = ModelPolicy("forgetting", (WINDOW, FULL))
"""The second group takes no frame: a page's number is all that is kept of it behind the window."""


def test_numbers_outlive_frames_and_are_found_again() -> None:
    """A text of 250 pages in 20 frames, twice: the second time nothing is computed but its end."""
    scheduler, model = make_scheduler(pages=20, sizes=(1, 0), numbers=300), ToyModel()
    cached = {}
    for number in (1, 2):
        prompt = np.concatenate((text(2000), text(9, seed=number)))
        scheduler.open(spec(number, prompt, policy=FORGETTING, groups=(0, 1)), 0.0)
        cached[number] = finished(finish(scheduler, model))[SequenceId(number)].cached_tokens
        assert model.output[SequenceId(number)] == windowed_output(prompt, 4)
    assert cached == {1: 0, 2: 2000}


def test_a_text_with_more_pages_than_numbers_is_refused() -> None:
    """Where numbers are kept; a window that keeps none goes on."""
    scheduler = make_scheduler(pages=20, sizes=(1, 0), numbers=100)
    with pytest.raises(Refused):
        scheduler.open(spec(1, 2000, policy=FORGETTING, groups=(0, 1)), 0.0)
    scheduler.open(spec(2, 2000, policy=DROPPING, groups=(0, 1)), 0.0)


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    numbers=st.integers(42, 120),
    budget=st.sampled_from([5, 16, 64]),
)
def test_few_numbers_for_many_sequences_complete_undisturbed(
    sizes: list[int], numbers: int, budget: int
) -> None:
    """Numbers run out before frames do."""
    scheduler = make_scheduler(pages=30, budget_tokens=budget, sizes=(1, 0), numbers=numbers)
    model = ToyModel()
    for number, size in enumerate(sizes):
        prompt = text(size, seed=number)
        scheduler.open(spec(number, prompt, policy=FORGETTING, groups=(0, 1)), 0.0)
    assert len(finished(finish(scheduler, model))) == len(sizes)
    for number, size in enumerate(sizes):
        assert model.output[SequenceId(number)] == windowed_output(text(size, seed=number), 4)
