"""Steps are counted as they were: their tokens, whose they were, and what waited for them."""

from __future__ import annotations

import numpy as np
import pytest

from longspan.worker.encoding.job import JobId
from longspan.worker.encoding.scheduler import Scheduler as EncodingScheduler
from longspan.worker.generation.plan import SequenceId
from longspan.worker.limits import StepLimits
from longspan.worker.tally import Tally
from tests.worker.scheduling import PAGE_TOKENS, ToyModel, finish, make_scheduler, spec, step, text

ONE = SequenceId(1)


def test_everything_is_told_once() -> None:
    tally = Tally()
    assert tally.drain() is None
    tally.step(40, 39, 1)
    tally.step(1, 0, 1)
    tally.pages(2, 1)
    tally.cached_tokens += 16
    tally.waits_s.append(0.5)
    told = tally.drain()
    assert told is not None
    assert list(told.step_tokens) == [40, 1]
    assert list(told.waits_s) == [0.5]
    assert (told.prefill_tokens, told.cached_tokens, told.decode_tokens) == (39, 16, 2)
    assert (told.computed_pages, told.missing_pages) == (2, 1)
    assert tally.drain() is None


def test_texts_wait_from_their_arrival_to_their_step() -> None:
    scheduler = EncodingScheduler(StepLimits(budget_tokens=40, texts=2))
    word = b"\1\0\0\0"
    scheduler.submit(JobId(1), [word * 4] * 3, max_wait_s=0.0, now=10.0)
    for now, texts in ((12.0, 2), (15.0, 1)):
        plan = scheduler.plan(now)
        assert plan is not None
        scheduler.commit(plan, [b""] * texts)
    told = scheduler.tally.drain()
    assert told is not None
    assert list(told.waits_s) == [2.0, 2.0, 5.0]
    assert list(told.step_tokens) == [12, 6]


def test_patience_for_a_fuller_step_is_no_wait() -> None:
    """Else a slow upload to an idle worker would look like a worker that is too slow."""
    scheduler = EncodingScheduler(StepLimits(budget_tokens=400, texts=2))
    word = b"\1\0\0\0"
    scheduler.submit(JobId(1), [word], max_wait_s=0.1, now=10.0)
    assert scheduler.plan(10.05) is None
    alone = scheduler.plan(10.125)
    assert alone is not None
    scheduler.submit(JobId(2), [word], max_wait_s=0.1, now=10.2)
    scheduler.submit(JobId(3), [word], max_wait_s=0.1, now=10.2)
    scheduler.commit(alone, [b""])
    full = scheduler.plan(10.25)
    assert full is not None
    scheduler.commit(full, [b"", b""])
    told = scheduler.tally.drain()
    assert told is not None
    assert list(told.waits_s) == pytest.approx([0.025, 0.0, 0.0])


@pytest.mark.parametrize("delivered", [0, 3])
def test_a_decoder_counts_prompts_and_answers(delivered: int) -> None:
    """What another worker has delivered is computed again, but not sampled."""
    scheduler, model = make_scheduler(budget_tokens=64), ToyModel()
    scheduler.open(spec(1, 100, max_tokens=5, delivered=[1] * delivered), 0.0)
    finish(scheduler, model)
    told = scheduler.meter.tally.drain()
    assert told is not None
    assert told.prefill_tokens == 100 + delivered
    assert told.decode_tokens == 5 - delivered
    assert sum(told.step_tokens) == 100 + delivered + 5 - delivered - 1
    assert told.computed_pages == told.missing_pages == 100 // PAGE_TOKENS
    assert told.cached_tokens == 0


def test_a_second_prompt_is_counted_as_found() -> None:
    scheduler, model = make_scheduler(), ToyModel()
    for number in (1, 2):
        scheduler.meter.tally.drain()
        scheduler.open(spec(number, text(100, 7), max_tokens=1), 0.0)
        finish(scheduler, model)
    told = scheduler.meter.tally.drain()
    assert told is not None
    found = 99 // PAGE_TOKENS * PAGE_TOKENS
    assert (told.cached_tokens, told.prefill_tokens) == (found, 100 - found)
    assert told.computed_pages == 100 // PAGE_TOKENS - found // PAGE_TOKENS


def test_a_chunk_is_ready_from_when_it_came_to_when_a_step_takes_it() -> None:
    scheduler, model = make_scheduler(budget_tokens=64), ToyModel()
    scheduler.open(spec(1, 65, sealed=False), 1.0)
    plan = scheduler.plan(3.0)
    assert plan is not None
    # It has all that it may compute; the next tokens come while the step runs.
    scheduler.append(ONE, text(10), seal=False, now=4.0)
    scheduler.commit(plan, model.run(plan))
    second = scheduler.plan(6.0)
    assert second is not None
    scheduler.commit(second, model.run(second))
    assert scheduler.plan(7.0) is None
    # Its client says nothing for long: that is no wait.
    scheduler.append(ONE, np.zeros(1, np.uint32), seal=True, now=100.0)
    assert scheduler.plan(100.5) is not None
    told = scheduler.meter.tally.drain()
    assert told is not None
    assert list(told.waits_s) == [2.0, 2.0, 0.5]


def test_who_is_not_served_waits_until_the_others_let_it() -> None:
    """And tokens of answers wait for nobody that is counted here."""
    scheduler, model = make_scheduler(budget_tokens=16, sequences=1), ToyModel()
    for number in (1, 2):
        scheduler.open(spec(number, 40, max_tokens=4), 0.0)
    for now in range(1, 13):
        step(scheduler, model, float(now))
    told = scheduler.meter.tally.drain()
    assert told is not None
    assert list(told.waits_s) == [1.0, 0.0, 0.0, 7.0, 0.0, 0.0]
