"""Pages that go down to the tiers below the pool and come back: with a toy model and toy tiers."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.policy import FULL_MODEL, ModelPolicy
from longspan.worker.generation.below import Below
from longspan.worker.generation.limits import StepLimits
from longspan.worker.generation.outcomes import (
    Outcome,
    SequenceCancelled,
    SequenceFinished,
    SequencePrefilled,
)
from longspan.worker.generation.plan import SequenceId
from longspan.worker.generation.scheduler import Scheduler
from longspan.worker.generation.work import Work
from longspan.worker.kv.pages import PageTable
from longspan.worker.tiers.costs import pages_to_compute
from tests.worker.scheduling import (
    PAGE_TOKENS,
    ToyModel,
    expected_output,
    finished,
    spec,
    step,
    text,
)
from tests.worker.test_generation_policies import DROPPING, windowed_output
from tests.worker.toy_tiers import ToyTiers

PARITY = 16_384
TOKEN_S = 1.0
PAGE_S = PAGE_TOKENS * TOKEN_S


class Machine:
    """A scheduler, a toy model and toy tiers, which a restart takes the pool from."""

    def __init__(
        self,
        *,
        pages: int = 100,
        sizes: Sequence[int] = (1,),
        load_s: float = 0.0,
        numbers: int | None = None,
    ) -> None:
        self._pages = pages
        self._numbers = numbers
        self._sizes = tuple(sizes)
        self.model = ToyModel(sizes=sizes)
        self.tiers = ToyTiers(self.model, sizes, load_s)
        self.restart()

    def restart(self) -> None:
        """An empty pool over the same tiers."""
        table = PageTable(self._pages * sum(self._sizes), self._sizes, pages=self._numbers)
        below = Below(table, PAGE_TOKENS, self.tiers, Work(PARITY), TOKEN_S)
        limits = StepLimits(budget_tokens=64, sequences=4, parity_tokens=PARITY)
        self.below = below
        self.scheduler = Scheduler(
            limits, table, page_tokens=PAGE_TOKENS, context_tokens=100_000, below=below
        )

    def finish(self, moves: int = 1000) -> list[Outcome]:
        """Step until nothing is left; so many moves end between two steps."""
        outcomes: list[Outcome] = []
        for _ in range(10_000):
            if self.scheduler.idle and self.below.idle:
                return outcomes
            self.tiers.work(moves)
            outcomes += step(self.scheduler, self.model)
        raise AssertionError("it does not end")

    def ask(self, number: int, prompt: int, *, moves: int = 1000) -> SequenceFinished:
        """One sequence from its start to its end."""
        self.scheduler.open(spec(number, text(prompt, 7)), 0.0)
        outcomes = self.finish(moves)
        return finished(outcomes)[SequenceId(number)]


def test_a_restarted_worker_computes_only_what_is_not_stored() -> None:
    machine = Machine()
    machine.ask(1, 200)
    machine.restart()
    end = machine.ask(2, 200)
    assert end.cached_tokens == 192
    assert len(machine.model.computed[SequenceId(2)]) == 200 - 192 + 3
    assert machine.model.output[SequenceId(2)] == expected_output(text(200, 7), 4)
    assert machine.tiers.loads == 24


def test_what_several_ask_for_at_once_is_loaded_once() -> None:
    """Some of them leave before it has come; the others are served."""
    machine = Machine()
    machine.ask(1, 200)
    machine.restart()
    for number in (2, 3, 4, 5):
        machine.scheduler.open(spec(number, text(200, 7)), 0.0)
    step(machine.scheduler, machine.model)
    assert machine.tiers.waiting == 24
    assert len(machine.below.holds()) == 24
    machine.scheduler.cancel(SequenceId(2))
    ends = finished(machine.finish(moves=3))
    assert machine.tiers.loads == 24
    assert {ends[SequenceId(number)].cached_tokens for number in (3, 4, 5)} == {192}
    assert {tuple(machine.model.output[SequenceId(number)]) for number in (3, 4, 5)} == {
        tuple(expected_output(text(200, 7), 4))
    }


def test_nothing_is_loaded_where_computing_is_quicker() -> None:
    machine = Machine(load_s=100 * PAGE_S)
    machine.ask(1, 200)
    machine.restart()
    end = machine.ask(2, 200)
    assert end.cached_tokens == 0
    assert machine.tiers.loads == 0


def missing(machine: Machine, number: int, task_start: int | None = None) -> int:
    """Tokens that a sequence of 200 is told to have found nowhere."""
    machine.scheduler.open(spec(number, text(200, 7), task_start=task_start), 0.0)
    told = [one for one in machine.finish() if isinstance(one, SequencePrefilled)]
    assert told[-1].tokens == 200
    return told[-1].missing


def test_what_is_nowhere_is_missing_and_what_is_quicker_to_compute_is_not() -> None:
    machine = Machine(load_s=100 * PAGE_S)
    assert missing(machine, 1, task_start=190) == 184
    machine.restart()
    assert missing(machine, 2) == 0
    assert machine.tiers.loads == 0
    for key in list(machine.tiers.kept)[10:]:
        del machine.tiers.kept[key]
    machine.restart()
    assert missing(machine, 3, task_start=190) == 184 - 10 * PAGE_TOKENS
    machine.tiers.kept.clear()
    assert missing(machine, 4) == 0, "the pool has them"
    machine.restart()
    assert missing(machine, 5, task_start=3 * PAGE_TOKENS) == 3 * PAGE_TOKENS


def test_pages_that_were_lost_to_others_meanwhile_are_missing_once() -> None:
    machine = Machine(pages=30)
    machine.tiers.load_s = 100 * PAGE_S
    for number in (1, 2):
        machine.scheduler.open(spec(number, 150, max_tokens=60), 0.0)
    told = [one for one in machine.finish(moves=1) if isinstance(one, SequencePrefilled)]
    assert len([one for one in told if one.tokens == 150]) >= 2
    assert {one.missing for one in told if one.tokens == 150} == {144}


def test_what_is_forgotten_before_it_is_stored_is_not_stored() -> None:
    machine = Machine()
    for number in (1, 2):
        machine.scheduler.open(spec(number, 200, tenant=f"tenant {number}"), 0.0)
    while not machine.scheduler.idle:
        step(machine.scheduler, machine.model)
    machine.scheduler.forget("tenant 1", "")
    machine.finish()
    begun = 4  # of whichever came first, when it was forgotten
    assert 25 <= machine.tiers.stores <= 25 + begun


def test_where_both_take_as_long_each_does_half() -> None:
    machine = Machine(load_s=PAGE_S)
    machine.ask(1, 200)
    machine.restart()
    machine.scheduler.open(spec(2, text(200, 7)), 0.0)
    outcomes: list[Outcome] = []
    while not machine.scheduler.idle:
        machine.tiers.work(8)  # a step computes eight pages
        outcomes += step(machine.scheduler, machine.model)
    (end,) = finished(outcomes).values()
    assert 10 <= machine.tiers.loads <= 14
    assert end.cached_tokens == 8 * machine.tiers.loads
    assert machine.model.output[SequenceId(2)] == expected_output(text(200, 7), 4)


def test_a_disk_that_turns_out_slow_is_not_waited_for() -> None:
    machine = Machine()
    machine.ask(1, 200)
    machine.restart()
    machine.scheduler.open(spec(2, text(200, 7)), 0.0)
    outcomes = step(machine.scheduler, machine.model)
    assert machine.tiers.waiting == 24
    machine.tiers.work(4)
    machine.tiers.load_s = 1000 * PAGE_S
    while not machine.scheduler.idle:
        outcomes += step(machine.scheduler, machine.model)
    (end,) = finished(outcomes).values()
    assert end.cached_tokens == 4 * 8
    assert machine.model.output[SequenceId(2)] == expected_output(text(200, 7), 4)


def test_a_load_that_hangs_holds_up_nobody() -> None:
    """Neither the one that waits for it, nor those behind, nor who comes later."""
    machine = Machine()
    machine.ask(1, 200)
    machine.restart()
    for number in (2, 3):
        machine.scheduler.open(spec(number, text(200, 7)), 0.0)
    step(machine.scheduler, machine.model)
    machine.tiers.hang()
    step(machine.scheduler, machine.model)
    assert machine.scheduler.next_wakeup(5.0) == pytest.approx(5.1)
    assert machine.scheduler.sequences == 2
    machine.tiers.load_s = 1000 * PAGE_S  # as it is while the load goes on
    while not machine.scheduler.idle:
        step(machine.scheduler, machine.model)
    machine.scheduler.open(spec(4, text(200, 7)), 0.0)
    while not machine.scheduler.idle:
        step(machine.scheduler, machine.model)
    for number in (2, 3, 4):
        assert machine.model.output[SequenceId(number)] == expected_output(text(200, 7), 4)
    assert len(machine.below.holds()) == 1, "what hangs"
    machine.tiers.begun.clear()
    machine.tiers.work(1000)
    machine.below.collect()
    assert machine.below.holds() == []
    assert machine.scheduler.memory.free == machine.scheduler.memory.total


def test_a_window_that_hangs_is_computed() -> None:
    machine = Machine()
    machine.scheduler.open(spec(1, text(200, 7), policy=DROPPING), 0.0)
    machine.finish()
    machine.restart()
    machine.scheduler.open(spec(2, text(200, 7), policy=DROPPING), 0.0)
    step(machine.scheduler, machine.model)
    machine.tiers.hang()
    machine.tiers.work(1)
    step(machine.scheduler, machine.model)
    assert machine.scheduler.sequences == 1
    machine.tiers.load_s = 1000 * PAGE_S
    while not machine.scheduler.idle:
        step(machine.scheduler, machine.model)
    assert machine.model.output[SequenceId(2)] == machine.model.output[SequenceId(1)]
    assert len(machine.model.computed[SequenceId(2)]) == 200 + 3
    machine.tiers.begun.clear()
    machine.tiers.work(1000)
    machine.below.collect()
    assert machine.below.holds() == []


def test_whoever_finds_anothers_pages_does_not_wait_for_its_own_loads_of_them() -> None:
    machine = Machine()
    machine.ask(1, 200)
    machine.restart()
    machine.tiers.loads = 0
    for number in (2, 3):
        machine.scheduler.open(spec(number, text(200, 7)), 0.0)
    while not machine.scheduler.idle:
        machine.tiers.work(1)
        step(machine.scheduler, machine.model)
    assert machine.tiers.loads < 2 * 24 - 10


def test_pages_behind_the_loads_of_others_are_computed_where_that_is_quicker() -> None:
    machine = Machine(load_s=PAGE_S / 2)
    for number in (1, 2):
        machine.scheduler.open(spec(number, text(200, number)), 0.0)
    machine.finish()
    machine.restart()
    machine.scheduler.open(spec(3, text(200, 1)), 0.0)
    outcomes = step(machine.scheduler, machine.model)
    assert machine.tiers.waiting > 10
    machine.scheduler.open(spec(4, text(40, 2)), 0.0)
    while not machine.scheduler.idle:
        outcomes += step(machine.scheduler, machine.model)
        machine.tiers.work(1)
    assert finished(outcomes)[SequenceId(3)].cached_tokens > 0
    assert finished(outcomes)[SequenceId(4)].cached_tokens == 0, "four pages are quickly computed"


def test_a_lost_page_is_computed_and_those_behind_it_are_loaded() -> None:
    machine = Machine()
    machine.ask(1, 200)
    lost = list(machine.tiers.kept)[10]
    machine.tiers.lost.add(lost)
    machine.restart()
    end = machine.ask(2, 200)
    assert end.cached_tokens == 192 - 8
    assert machine.model.output[SequenceId(2)] == expected_output(text(200, 7), 4)


def test_a_growing_prompt_takes_up_what_an_earlier_one_left() -> None:
    machine = Machine()
    machine.ask(1, 200)
    machine.restart()
    tokens = text(200, 7)
    machine.scheduler.open(spec(2, tokens[:5], sealed=False), 0.0)
    for start in range(5, 200, 15):
        step(machine.scheduler, machine.model)
        machine.tiers.work(10)
        machine.scheduler.append(SequenceId(2), tokens[start : start + 15], seal=start + 15 >= 200)
    (end,) = finished(machine.finish()).values()
    assert end.cached_tokens == 192 - 4, "it had begun before it knew the first page"
    assert machine.model.output[SequenceId(2)] == expected_output(tokens, 4)


def test_cancelled_in_the_middle_of_its_loads_it_leaves_no_page_behind() -> None:
    machine = Machine()
    machine.ask(1, 200)
    machine.restart()
    machine.scheduler.open(spec(2, text(200, 7)), 0.0)
    step(machine.scheduler, machine.model)
    machine.tiers.work(3)
    machine.scheduler.cancel(SequenceId(2))
    machine.scheduler.check()
    step(machine.scheduler, machine.model)
    assert machine.scheduler.memory.free == machine.scheduler.memory.total
    assert machine.below.holds() == []


def test_what_the_pool_finds_counts_as_used_below() -> None:
    machine = Machine()
    machine.ask(1, 200)
    machine.ask(2, 200)
    assert machine.tiers.touched == list(machine.tiers.kept)[:24]


@pytest.mark.parametrize("documents", [3, 5])
def test_documents_at_several_times_the_pool_neither_block_nor_spoil_each_other(
    documents: int,
) -> None:
    machine = Machine(pages=40)
    for number in range(documents):
        machine.scheduler.open(spec(number, text(200, number), max_tokens=0), 0.0)
        machine.finish()
    for number in range(documents):
        machine.scheduler.open(spec(100 + number, text(200, number)), 0.0)
    ends = finished(machine.finish(moves=5))
    assert any(end.cached_tokens for end in ends.values())
    for number in range(documents):
        who = SequenceId(100 + number)
        assert machine.model.output[who] == expected_output(text(200, number), 4)


@pytest.mark.parametrize("policy", [FULL_MODEL, DROPPING], ids=["full", "window"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_happens_answers_stay_and_pages_add_up(
    policy: ModelPolicy, data: st.DataObject
) -> None:
    answer = expected_output if policy is FULL_MODEL else windowed_output
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    machine = Machine(pages=rng.randint(20, 60), load_s=rng.choice([0.0, PAGE_S, 3 * PAGE_S]))
    prompts: dict[int, np.ndarray] = {}
    outcomes: list[Outcome] = []
    for number in range(rng.randint(2, 10)):
        shared = text(rng.randint(1, 120), rng.randint(0, 2))
        prompts[number] = np.concatenate((shared, text(rng.randint(0, 30), 50 + number)))
        tokens = rng.randint(1, 5)
        machine.scheduler.open(spec(number, prompts[number], max_tokens=tokens, policy=policy), 0.0)
        for _ in range(rng.randint(0, 12)):
            machine.tiers.work(rng.randint(0, 3))
            outcomes += step(machine.scheduler, machine.model)
            if machine.tiers.kept and rng.random() < 0.05:
                machine.tiers.lost.add(rng.choice(list(machine.tiers.kept)))
        if rng.random() < 0.2:
            ended = machine.scheduler.cancel(SequenceId(rng.randint(0, number)))
            outcomes += [ended] if ended is not None else []
        if rng.random() < 0.2:
            outcomes += machine.finish()
            machine.restart()
    outcomes += machine.finish(moves=rng.randint(1, 20))
    cancelled = [one for one in outcomes if isinstance(one, SequenceCancelled)]
    assert len(finished(outcomes)) + len(cancelled) == len(prompts)
    for sequence_id in finished(outcomes):
        output = machine.model.output[sequence_id]
        assert output == answer(prompts[int(sequence_id)], len(output))
    assert machine.scheduler.memory.free == machine.scheduler.memory.total
    assert machine.below.holds() == []


@given(
    st.lists(st.floats(0.01, 10), min_size=1, max_size=40),
    st.floats(0.001, 20),
)
def test_meeting_in_the_middle_is_never_slower_than_either_alone(
    compute_s: list[float], load_s: float
) -> None:
    first = pages_to_compute(compute_s, load_s)
    both = max(sum(compute_s[:first]), load_s * (len(compute_s) - first))
    assert both <= min(sum(compute_s), load_s * len(compute_s)) / 0.9 + 1e-9
