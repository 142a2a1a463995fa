"""How sequences are refused, cancelled, failed, finished and preempted."""

from __future__ import annotations

import numpy as np
import pytest

from longspan.worker.generation.limits import StepLimits
from longspan.worker.generation.outcomes import (
    FailureReason,
    FinishReason,
    Refused,
    Sampled,
    SequenceCancelled,
    SequenceFailed,
    SequenceFinished,
    SequencePrefilled,
)
from longspan.worker.generation.plan import SequenceId
from longspan.worker.generation.sequence import SequenceSpec
from tests.worker.scheduling import (
    ToyModel,
    expected_output,
    finish,
    finished,
    make_scheduler,
    spec,
    step,
    text,
)

ONE = SequenceId(1)
TWO = SequenceId(2)


@pytest.mark.parametrize(
    ("opened", "reason"),
    [
        (spec(1, 5), FailureReason.DUPLICATE_JOB),
        (spec(2, 0), FailureReason.EMPTY_PROMPT),
        (spec(2, 100), FailureReason.PROMPT_TOO_LONG),
        (spec(2, 90), FailureReason.OUT_OF_PAGES),
    ],
)
def test_a_sequence_that_cannot_be_served_is_refused(
    opened: SequenceSpec, reason: FailureReason
) -> None:
    """The refusal names its reason, and leaves nothing behind."""
    scheduler = make_scheduler(context_tokens=100, pages=10)
    scheduler.open(spec(1, 5), 0.0)
    with pytest.raises(Refused) as refusal:
        scheduler.open(opened, 0.0)
    assert refusal.value.reason is reason
    assert scheduler.sequences == 1


def test_a_prompt_may_fill_the_context_where_nothing_is_sampled() -> None:
    """Room for one output token is asked for only where there will be one."""
    scheduler = make_scheduler(context_tokens=100)
    scheduler.open(spec(1, 100, max_tokens=0), 0.0)
    assert finished(finish(scheduler, ToyModel()))[ONE].reason is FinishReason.STOP


@pytest.mark.parametrize(
    ("tokens", "seal", "reason"),
    [
        (95, False, FailureReason.PROMPT_TOO_LONG),
        (80, False, FailureReason.OUT_OF_PAGES),
        (0, True, FailureReason.EMPTY_PROMPT),
    ],
)
def test_an_append_that_cannot_be_read_fails_the_sequence_once(
    tokens: int, seal: bool, reason: FailureReason
) -> None:
    """Whatever is sent for it afterwards is ignored."""
    scheduler = make_scheduler(context_tokens=100, pages=10)
    prompt = 0 if seal else 5
    scheduler.open(spec(1, prompt, sealed=False), 0.0)
    scheduler.append(ONE, text(tokens), seal=seal)
    scheduler.append(ONE, text(1), seal=True)
    assert scheduler.cancel(ONE) is None
    assert scheduler.plan(0.0) is None
    (failed,) = scheduler.outcomes()
    assert isinstance(failed, SequenceFailed)
    assert failed.reason is reason
    assert scheduler.idle


def test_an_append_behind_the_seal_fails_the_sequence() -> None:
    """The prompt may have been sampled from already; it is too late to go on with it."""
    scheduler = make_scheduler()
    scheduler.open(spec(1, 5), 0.0)
    scheduler.append(ONE, text(1), seal=False)
    (failed,) = scheduler.outcomes()
    assert isinstance(failed, SequenceFailed)
    assert failed.reason is FailureReason.PROMPT_SEALED


def test_a_sequence_in_the_open_step_ends_when_the_step_does() -> None:
    """Cancelled or failed, it is told by ``commit``, and only once; its pages stay cached."""
    scheduler, model = make_scheduler(context_tokens=100), ToyModel()
    scheduler.open(spec(1, 10), 0.0)
    scheduler.open(spec(2, 10, sealed=False), 0.0)
    plan = scheduler.plan(0.0)
    assert plan is not None
    assert scheduler.cancel(ONE) is None
    assert scheduler.cancel(ONE) is None
    scheduler.append(TWO, text(200), seal=True)
    assert scheduler.cancel(TWO) is None
    cancelled, failed = scheduler.commit(plan, model.run(plan))
    assert cancelled == SequenceCancelled(ONE)
    assert isinstance(failed, SequenceFailed)
    scheduler.check()
    assert scheduler.idle


def test_a_waiting_sequence_is_cancelled_at_once_and_an_unknown_one_is_ignored() -> None:
    """Its pages are free again before the next step."""
    scheduler = make_scheduler(pages=2)
    scheduler.open(spec(1, 10, sealed=False), 0.0)
    step(scheduler, ToyModel())
    assert scheduler.cancel(ONE) == SequenceCancelled(ONE)
    assert scheduler.cancel(ONE) is None
    scheduler.check()
    assert scheduler.idle


def test_a_deadline_ends_a_sequence_and_wakes_the_caller() -> None:
    """An idle sequence needs no step until then."""
    scheduler, model = make_scheduler(), ToyModel()
    scheduler.open(spec(1, 10, sealed=False, deadline_s=5.0), 0.0)
    step(scheduler, model)
    assert scheduler.next_wakeup(1.0) == 5.0
    assert scheduler.plan(4.9) is None
    assert scheduler.outcomes() == []
    assert scheduler.plan(5.0) is None
    (failed,) = scheduler.outcomes()
    assert isinstance(failed, SequenceFailed)
    assert failed.reason is FailureReason.DEADLINE_EXCEEDED
    assert scheduler.next_wakeup(6.0) is None


def test_output_ends_at_the_context() -> None:
    """Prompt and output together are never longer than the model reads."""
    scheduler, model = make_scheduler(context_tokens=30), ToyModel()
    scheduler.open(spec(1, 20, max_tokens=100), 0.0)
    end = finished(finish(scheduler, model))[ONE]
    assert (end.reason, end.output_tokens) == (FinishReason.LENGTH, 10)


def test_the_caller_may_end_a_sequence_with_its_token() -> None:
    """A stop token, a stop text or a grammar is known to the caller alone."""
    scheduler, model = make_scheduler(), ToyModel()
    scheduler.open(spec(1, 20, max_tokens=100), 0.0)
    plan = scheduler.plan(0.0)
    assert plan is not None
    model.run(plan)
    assert scheduler.commit(plan, {ONE: Sampled(3, FinishReason.STOP)}) == [
        SequencePrefilled(ONE, 20, 0, missing=16),
        SequenceFinished(ONE, FinishReason.STOP, 20, 0, 1, frames=3, pages=3),
    ]


def test_preemption_takes_pages_from_the_last_in_rank_and_gives_them_back() -> None:
    """All complete with the right output; the first in rank is never disturbed."""
    scheduler, model = make_scheduler(pages=9, budget_tokens=30, sequences=4), ToyModel()
    scheduler.open(spec(1, 20, max_tokens=30, priority=2), 0.0)
    scheduler.open(spec(2, 20, max_tokens=30, priority=3), 0.1)
    scheduler.open(spec(3, 20, max_tokens=30, priority=1), 0.2)
    ends = finished(finish(scheduler, model))
    assert len(ends) == 3
    for number in (1, 2, 3):
        prompt = spec(number, 20).prompt
        assert model.output[SequenceId(number)] == expected_output(prompt, 30)
    again = {number: len(model.computed[SequenceId(number)]) - 49 for number in (1, 2, 3)}
    assert again[2] == 0
    assert again[3] > 0


def test_a_sequence_that_outgrows_all_pages_fails_and_the_others_complete() -> None:
    """It fails only when it needs more than there is."""
    scheduler, model = make_scheduler(pages=4), ToyModel()
    scheduler.open(spec(1, 20, max_tokens=50), 0.0)
    scheduler.open(spec(2, 10, max_tokens=5), 0.0)
    outcomes = finish(scheduler, model)
    (failed,) = [end for end in outcomes if isinstance(end, SequenceFailed)]
    assert (failed.sequence_id, failed.reason) == (ONE, FailureReason.OUT_OF_PAGES)
    assert len(model.output[ONE]) == 4 * 8 - 20 + 1
    assert TWO in finished(outcomes)


def test_an_upload_that_stalls_gives_its_pages_to_those_that_can_use_them() -> None:
    """Even to younger ones, and does not take them back when it has something to read again."""
    scheduler, model = make_scheduler(pages=6), ToyModel()
    scheduler.open(spec(1, 40, sealed=False), 0.0)
    step(scheduler, model)
    scheduler.open(spec(2, 30, max_tokens=4), 1.0)
    step(scheduler, model, 2.0)
    scheduler.append(ONE, text(2), seal=True)
    ends = finished(finish(scheduler, model, now=3.0))
    assert list(ends) == [TWO, ONE]
    assert model.computed[TWO] == list(range(33))
    prompt = np.concatenate([spec(1, 40).prompt, text(2)])
    assert model.output[ONE] == expected_output(prompt, 4)


def test_more_decoding_sequences_than_rows_take_turns_and_leave_one_to_prefills() -> None:
    """No sequence falls behind by more than a turn, and a new one gets in."""
    scheduler, model = make_scheduler(sequences=3), ToyModel()
    for number in range(6):
        scheduler.open(spec(number, 4, max_tokens=1000), 0.0)
    while len(model.output) < 6:
        step(scheduler, model)
    before = {number: len(model.output[SequenceId(number)]) for number in range(6)}
    for _ in range(10):
        step(scheduler, model)
    gained = {number: len(model.output[SequenceId(number)]) - before[number] for number in range(6)}
    assert set(gained.values()) == {5}
    scheduler.open(spec(6, 4), 0.0)
    step(scheduler, model)
    assert len(model.output[SequenceId(6)]) == 1


def test_limits_must_be_positive() -> None:
    """A step takes something."""
    with pytest.raises(ValueError, match="at least one token"):
        StepLimits(budget_tokens=0)


def test_open_prompts_that_do_not_fit_together_come_to_rest() -> None:
    """Whose client says nothing reads ahead where pages are free, and evicts nobody for it."""
    scheduler, model = make_scheduler(pages=10), ToyModel()
    for number in (1, 2, 3):
        scheduler.open(spec(number, 49, sealed=False), 0.0)
    for _ in range(50):
        step(scheduler, model)
    assert scheduler.plan(0.0) is None
    assert scheduler.next_wakeup(0.0) is None
    computed = sum(len(positions) for positions in model.computed.values())
    assert computed <= 4 * 49
    for number in (1, 2, 3):
        scheduler.append(SequenceId(number), text(5, seed=number), seal=True)
    ends = finished(finish(scheduler, model))
    assert sorted(ends) == [1, 2, 3]
    for number in (1, 2, 3):
        prompt = np.concatenate((text(49, 1000 + number), text(5, seed=number)))
        assert model.output[SequenceId(number)] == expected_output(prompt, 4)


def test_a_prompt_that_goes_on_is_read_though_another_reads_ahead() -> None:
    """Pages of those that wait for their clients are anybody's who does not."""
    scheduler, model = make_scheduler(pages=10), ToyModel()
    for number in (1, 2):
        scheduler.open(spec(number, 49, sealed=False), 0.0)
    outcomes = []
    for round_ in range(6):
        for _ in range(20):
            outcomes += step(scheduler, model)
        number = SequenceId(1 + round_ % 2)
        scheduler.append(number, text(1, seed=round_), seal=round_ >= 4)
    assert sorted(finished([*outcomes, *finish(scheduler, model)])) == [1, 2]
