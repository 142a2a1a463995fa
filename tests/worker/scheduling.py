"""Driving a generation scheduler without a model: a toy one, and steps until all is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from longspan.worker.attention.policy import FULL_MODEL, ModelPolicy
from longspan.worker.attention.retention import retention
from longspan.worker.generation.limits import StepLimits
from longspan.worker.generation.outcomes import (
    Outcome,
    Sampled,
    SequenceCancelled,
    SequenceFailed,
    SequenceFinished,
)
from longspan.worker.generation.plan import Chunk, SequenceId, StepPlan
from longspan.worker.generation.scheduler import Scheduler
from longspan.worker.generation.sequence import HOLE, SequenceSpec
from longspan.worker.kv.chain import KeySpace
from longspan.worker.kv.pages import PageTable

PAGE_TOKENS = 8
VOCABULARY = 50


def keys(tenant: str = "tenant") -> KeySpace:
    """The key space of one tenant."""
    return KeySpace(tenant, "model", "float32", "full", 1)


def ids(values: Iterable[int]) -> npt.NDArray[np.uint32]:
    """Token ids."""
    return np.fromiter(values, np.uint32)


def text(tokens: int, seed: int = 0) -> npt.NDArray[np.uint32]:
    """Random tokens; an equal seed gives an equal beginning."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, tokens).astype(np.uint32)


def spec(
    number: int,
    prompt: npt.NDArray[np.uint32] | int,
    *,
    sealed: bool = True,
    max_tokens: int = 4,
    priority: int = 2,
    tenant: str = "tenant",
    delivered: Iterable[int] = (),
    deadline_s: float | None = None,
    policy: ModelPolicy = FULL_MODEL,
    groups: Sequence[int] = (0,),
    task_start: int | None = None,
) -> SequenceSpec:
    """A sequence; a number as its prompt is that many tokens that no other prompt begins with.

    ``groups`` has a layer of each group of layers.
    """
    tokens = text(prompt, 1000 + number) if isinstance(prompt, int) else prompt
    return SequenceSpec(
        sequence_id=SequenceId(number),
        keys=keys(tenant),
        prompt=tokens,
        sealed=sealed,
        delivered=ids(delivered),
        max_tokens=max_tokens,
        priority=priority,
        deadline_s=deadline_s,
        policy=policy,
        retentions=tuple(retention(policy.layer(layer), None, PAGE_TOKENS) for layer in groups),
        task_start=task_start,
    )


def make_scheduler(
    *,
    pages: int = 1000,
    budget_tokens: int = 64,
    sequences: int = 4,
    page_tokens: int = PAGE_TOKENS,
    context_tokens: int = 100_000,
    parity_tokens: int = 16_384,
    sizes: Sequence[int] = (1,),
    numbers: int | None = None,
) -> Scheduler:
    """A scheduler with its own pages; ``sizes`` are their frames in each group of layers."""
    limits = StepLimits(
        budget_tokens=budget_tokens, sequences=sequences, parity_tokens=parity_tokens
    )
    table = PageTable(pages * sum(sizes), sizes, pages=numbers)
    return Scheduler(limits, table, page_tokens=page_tokens, context_tokens=context_tokens)


def next_token(context: npt.NDArray[np.uint32]) -> int:
    """What the toy model says after a context: any change of it changes the answer."""
    return sha256(context.astype("<u4").tobytes()).digest()[0] % VOCABULARY


def is_terminal(outcome: Outcome) -> bool:
    """True for the outcomes of which every sequence has exactly one."""
    return isinstance(outcome, SequenceFinished | SequenceCancelled | SequenceFailed)


class ToyModel:
    """Computes a plan on pages that hold token ids, as a model does on pages that hold KV.

    Its layers are as many as there are groups; group g is layer g of a sequence's policy.

    Args:
        sizes: frames of a page in each group of layers.

    Attributes:
        cells: what is stored, (frame, offset) to token.
        writers: the sequence that wrote to a frame last.
        computed: positions computed for each sequence, in the order of the steps.
        output: tokens sampled for each sequence.
    """

    def __init__(self, page_tokens: int = PAGE_TOKENS, sizes: Sequence[int] = (1,)) -> None:
        self.page_tokens = page_tokens
        self.groups = [group for group, size in enumerate(sizes) for _ in range(size)]
        self.cells: dict[tuple[int, int], int] = {}
        self.writers: dict[int, SequenceId] = {}
        self.computed: dict[SequenceId, list[int]] = {}
        self.output: dict[SequenceId, list[int]] = {}

    def run(self, plan: StepPlan) -> dict[SequenceId, Sampled]:
        """All tokens are stored first, then every sampling chunk reads its whole context."""
        self._check_that_nobody_writes_what_others_read(plan)
        for chunk in plan.chunks:
            self._store(chunk)
        return {
            chunk.sequence_id: Sampled(self._sample(chunk))
            for chunk in plan.chunks
            if chunk.samples
        }

    def context(self, chunk: Chunk) -> npt.NDArray[np.uint32]:
        """What the pages of a chunk hold, as attention would see it in each frame."""
        return ids(
            self.cells[self._cell(chunk, frame, position)]
            for frame, group in enumerate(self.groups)
            for position in self.seen(chunk, group)
        )

    def seen(self, chunk: Chunk, group: int = 0) -> Iterable[int]:
        """The positions that the last query of a chunk sees in a group of layers."""
        policy = chunk.view.policy.layer(group)
        last = (chunk.end - 1) // self.page_tokens
        hidden = range(0)
        if policy.drops:
            hidden = range(policy.prefix_pages, last - policy.window_pages)
        return [p for p in range(chunk.end) if p // self.page_tokens not in hidden]

    def _check_that_nobody_writes_what_others_read(self, plan: StepPlan) -> None:
        written = {
            frame: chunk.sequence_id
            for chunk in plan.chunks
            for table in chunk.block_tables
            for frame in table[chunk.start // self.page_tokens :].tolist()
        }
        for chunk in plan.chunks:
            for group, table in zip(self.groups, chunk.block_tables, strict=True):
                for frame in table.tolist():
                    assert frame != HOLE or chunk.view.policy.layer(group).drops
                    assert written.get(frame, chunk.sequence_id) == chunk.sequence_id

    def _cell(self, chunk: Chunk, frame: int, position: int) -> tuple[int, int]:
        page, offset = divmod(position, self.page_tokens)
        return int(chunk.block_tables[frame][page]), offset

    def _store(self, chunk: Chunk) -> None:
        for table in chunk.block_tables:
            assert len(table) == -(-chunk.end // self.page_tokens)
        computed = self.computed.setdefault(chunk.sequence_id, [])
        for position, token in enumerate(chunk.tokens.tolist(), chunk.start):
            for frame in range(len(self.groups)):
                cell = self._cell(chunk, frame, position)
                self.cells[cell] = token
                self.writers[cell[0]] = chunk.sequence_id
            computed.append(position)

    def _sample(self, chunk: Chunk) -> int:
        token = next_token(self.context(chunk))
        self.output.setdefault(chunk.sequence_id, []).append(token)
        return token


def step(scheduler: Scheduler, model: ToyModel, now: float = 0.0) -> list[Outcome]:
    """Plan, run and commit one step, if there is one; everything that was told."""
    plan = scheduler.plan(now)
    outcomes = scheduler.outcomes()
    if plan is not None:
        outcomes += scheduler.commit(plan, model.run(plan))
    scheduler.check()
    return outcomes


def finish(
    scheduler: Scheduler,
    model: ToyModel,
    *,
    now: float = 0.0,
) -> list[Outcome]:
    """Step until nothing is left."""
    outcomes: list[Outcome] = []
    for _ in range(10_000):
        if scheduler.idle:
            return outcomes
        outcomes += step(scheduler, model, now)
    raise AssertionError(f"{scheduler.sequences} sequences are left")


def expected_output(prompt: npt.NDArray[np.uint32], tokens: int) -> list[int]:
    """What the toy model generates, one token after the other from the whole context."""
    context = prompt
    for _ in range(tokens):
        context = np.append(context, np.uint32(next_token(context)))
    return [int(token) for token in context[len(prompt) :]]


def finished(outcomes: Iterable[Outcome]) -> dict[SequenceId, SequenceFinished]:
    """The sequences that came to their end."""
    ends = [outcome for outcome in outcomes if isinstance(outcome, SequenceFinished)]
    return {end.sequence_id: end for end in ends}
