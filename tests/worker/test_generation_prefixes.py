"""What is computed and what is found: every position once, and the same answer either way."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.generation.outcomes import FinishReason, SequenceFinished
from longspan.worker.generation.plan import SequenceId
from tests.worker.scheduling import (
    PAGE_TOKENS,
    ToyModel,
    expected_output,
    finish,
    finished,
    ids,
    make_scheduler,
    spec,
    step,
    text,
)

DOCUMENT = text(10 * PAGE_TOKENS, 7)


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 150), max_size=6),
    budget_tokens=st.integers(1, 40),
    steps=st.integers(0, 3),
)
def test_any_chunking_of_a_prompt_computes_each_position_once_in_order(
    cuts: list[int], budget_tokens: int, steps: int
) -> None:
    """Neither the cuts of the upload nor the steps between them change what is computed."""
    prompt = text(150)
    scheduler, model = make_scheduler(budget_tokens=budget_tokens), ToyModel()
    scheduler.open(spec(1, 0, sealed=False), 0.0)
    places = [0, *sorted(cuts), len(prompt)]
    for start, end in pairwise(places):
        scheduler.append(SequenceId(1), prompt[start:end], seal=False)
        for _ in range(steps):
            step(scheduler, model)
    scheduler.append(SequenceId(1), ids([]), seal=True)
    finish(scheduler, model)
    assert model.computed[SequenceId(1)] == list(range(len(prompt) + 3))
    assert model.output[SequenceId(1)] == expected_output(prompt, 4)


@settings(max_examples=25, deadline=None)
@given(
    shared=st.integers(0, len(DOCUMENT)),
    own=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    together=st.booleans(),
    pages=st.sampled_from([25, 1000]),
)
def test_a_found_prefix_changes_neither_the_answer_nor_the_count_of_positions(
    shared: int, own: list[int], together: bool, pages: int
) -> None:
    """Every prompt position is computed for a sequence or counted as cached."""
    scheduler, model = make_scheduler(pages=pages), ToyModel()
    prompts = {
        SequenceId(number): np.concatenate([DOCUMENT[:shared], text(length, number)])
        for number, length in enumerate(own)
    }
    ends: dict[SequenceId, SequenceFinished] = {}
    for number, prompt in prompts.items():
        scheduler.open(spec(number, prompt), 0.0)
        if not together:
            ends |= finished(finish(scheduler, model))
    ends |= finished(finish(scheduler, model))
    for number, prompt in prompts.items():
        assert model.output[number] == expected_output(prompt, 4)
        own_positions = {place for place in model.computed[number] if place < len(prompt)}
        assert ends[number].cached_tokens == len(prompt) - len(own_positions)


def test_questions_about_one_document_compute_it_once_even_when_they_arrive_together() -> None:
    """Who stands before a page that another row computes waits for it."""
    document = text(300 * PAGE_TOKENS, 7)
    scheduler, model = make_scheduler(budget_tokens=167, sequences=8), ToyModel()
    for number in range(6):
        prompt = np.concatenate([document, text(5, number)])
        scheduler.open(spec(number, prompt, max_tokens=1), 0.0)
    finish(scheduler, model)
    computed = Counter(place for places in model.computed.values() for place in places)
    twice = [place for place in range(len(document)) if computed[place] > 1]
    assert len(twice) <= 0.1 * len(document)


def test_what_is_evicted_first_is_the_end_of_a_prompt() -> None:
    """Its beginning is of use without its end, and not the other way round."""
    scheduler, model = make_scheduler(pages=12), ToyModel()
    for number, prompt in enumerate([DOCUMENT, text(4 * PAGE_TOKENS, 8), DOCUMENT]):
        scheduler.open(spec(number, prompt, max_tokens=1), 0.0)
        ends = finished(finish(scheduler, model))
    assert ends[SequenceId(2)].cached_tokens == 8 * PAGE_TOKENS


def test_the_page_with_the_token_to_sample_from_is_computed() -> None:
    """A prompt that is cached to its last token still gets its logits."""
    scheduler, model = make_scheduler(), ToyModel()
    ends: list[SequenceFinished] = []
    for number in (1, 2):
        scheduler.open(spec(number, DOCUMENT, max_tokens=1), 0.0)
        ends.append(finished(finish(scheduler, model))[SequenceId(number)])
    assert [end.cached_tokens for end in ends] == [0, len(DOCUMENT) - PAGE_TOKENS]
    assert model.output[SequenceId(1)] == model.output[SequenceId(2)]


def test_a_prompt_that_is_only_read_may_be_found_whole() -> None:
    """Nothing is sampled, so nothing has to be computed."""
    scheduler, model = make_scheduler(), ToyModel()
    for number in (1, 2):
        scheduler.open(spec(number, DOCUMENT, max_tokens=0), 0.0)
        ends = finished(finish(scheduler, model))
    assert ends[SequenceId(2)] == SequenceFinished(
        SequenceId(2), FinishReason.STOP, len(DOCUMENT), len(DOCUMENT), 0, frames=10, pages=10
    )
    assert SequenceId(2) not in model.computed


def test_the_output_of_one_turn_is_found_by_the_next() -> None:
    """Pages filled by decoding are keyed like those of a prompt."""
    scheduler, model = make_scheduler(), ToyModel()
    scheduler.open(spec(1, DOCUMENT, max_tokens=30), 0.0)
    finish(scheduler, model)
    turn = np.concatenate([DOCUMENT, ids(model.output[SequenceId(1)]), text(5)])
    scheduler.open(spec(2, turn), 0.0)
    ends = finished(finish(scheduler, model))
    full_pages = (len(DOCUMENT) + 29) // PAGE_TOKENS
    assert ends[SequenceId(2)].cached_tokens == full_pages * PAGE_TOKENS


def test_tenants_share_nothing() -> None:
    """The same document of another tenant is computed again, on other pages."""
    scheduler, model = make_scheduler(), ToyModel()
    for number, tenant in ((1, "a"), (2, "b")):
        scheduler.open(spec(number, DOCUMENT, tenant=tenant), 0.0)
        ends = finished(finish(scheduler, model))
    assert ends[SequenceId(2)].cached_tokens == 0
    assert model.computed[SequenceId(1)] == model.computed[SequenceId(2)]


def test_delivered_tokens_are_read_like_a_prompt_and_count_as_output() -> None:
    """A second worker goes on exactly where the first one died."""
    whole = expected_output(DOCUMENT, 10)
    scheduler, model = make_scheduler(), ToyModel()
    scheduler.open(spec(1, DOCUMENT, max_tokens=10, delivered=whole[:6]), 0.0)
    end = finished(finish(scheduler, model))[SequenceId(1)]
    assert model.output[SequenceId(1)] == whole[6:]
    assert (end.prompt_tokens, end.output_tokens) == (len(DOCUMENT), 10)
    assert end.reason is FinishReason.LENGTH


def test_a_sequence_that_was_delivered_whole_ends_without_a_step() -> None:
    """The first worker died between its last token and its last event."""
    scheduler = make_scheduler()
    scheduler.open(spec(1, 20, max_tokens=2, delivered=[3, 4]), 0.0)
    assert scheduler.next_wakeup(0.0) == 0.0
    assert scheduler.plan(0.0) is None
    assert scheduler.outcomes() == [SequenceFinished(SequenceId(1), FinishReason.LENGTH, 20, 0, 2)]
    assert scheduler.idle
