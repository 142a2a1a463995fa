"""Decode steps planned on the device, against the definition and against the step's own planner."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.base import Attended
from longspan.worker.attention.decode_attention import DecodeAttention, can_decode, selects_from
from longspan.worker.attention.folded import FoldedBackend, FoldedTables
from longspan.worker.attention.layer_plan import View, layer_plan
from longspan.worker.attention.policy import (
    FULL,
    FULL_MODEL,
    PRESETS,
    LayerPolicy,
    ModelPolicy,
)
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.selection import Selection
from longspan.worker.attention.zones import Zones
from longspan.worker.generation.captured import Group, captured_groups
from longspan.worker.generation.decode_graph import (
    DecodeGraphs,
    Staging,
    decode_inputs,
    repeat_eagerly,
)
from longspan.worker.generation.plan import Chunk, SequenceId, StepPlan
from longspan.worker.generation.runner import Runner
from longspan.worker.models import seam
from longspan.worker.models.probe import probe
from tests.worker.decoders import tiny_decoder
from tests.worker.test_policies import (
    BACKENDS,
    CPU,
    EXACT,
    HIERARCHICAL,
    HYBRID,
    KV_HEADS,
    SCALE,
    SUMMARY,
    WINDOW,
    Document,
    assert_close,
)
from tests.worker.test_seam import VOCABULARY, load

PAGES = 7
TOKENS = PAGES * PAGE_TOKENS - 50
SCRATCH = PAGES + 2
"""Of the pages that a ``Document`` leaves free."""


LATER = replace(HYBRID, dense_pages=10)


def model(*layers: LayerPolicy) -> ModelPolicy:
    """A policy with these layers."""
    return ModelPolicy("test", layers)


@cache
def written(policy: LayerPolicy) -> tuple[Document, Attended]:
    """A document that is an answer from its first token on, and its attention."""
    document = Document(TOKENS, seed=1)
    document.write(0, TOKENS)
    return document, document.reference(policy, Zones(0, 0))


@pytest.mark.parametrize("kind", ["flash2", "flash3", "flash4"])
@pytest.mark.parametrize("policy", [FULL, WINDOW, HYBRID], ids=lambda policy: policy.kind)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_rows_see_what_the_definition_says(
    kind: str, policy: LayerPolicy, data: st.DataObject
) -> None:
    """Several positions of one document in one padded step; unused places hold the scratch page."""
    first = selects_from(model(policy))
    positions = data.draw(st.lists(st.integers(first, TOKENS - 1), min_size=1, max_size=4))
    document, expected = written(policy)
    rows = [document.rows(at, at + 1) for at in positions]
    joined = replace(
        rows[0],
        starts=np.array(positions, np.int64),
        lengths=np.ones(len(positions), np.int64),
        block_tables=[row.block_tables[0] for row in rows],
    )
    staging = Staging(5, 9, SCRATCH, CPU)
    staging.send(decode_inputs(np.zeros(len(positions), np.uint32), joined), 5)
    inputs = staging.on_device(5, 9)
    attention = DecodeAttention(
        BACKENDS[kind],  # type: ignore[arg-type]
        model(policy),
        inputs.block_tables,
        inputs.keys,
    )
    query = document.query[[*positions, *[0] * (5 - len(positions))]]
    actual = attention.attend(0, query, document.layer, scale=SCALE, window=None)
    used = len(positions)
    assert_close(
        Attended(expected.out[positions], expected.lse[positions]),
        Attended(actual.out[:used], actual.lse[:used]),
    )


@pytest.mark.parametrize("policy", [EXACT, HIERARCHICAL, SUMMARY], ids=str)
def test_what_has_no_graph(policy: LayerPolicy) -> None:
    """Other selectors, and far states, are planned on the host."""
    assert not can_decode(model(FULL, policy))


@pytest.mark.parametrize("layer", [HYBRID, PRESETS["hybrid"].layer])
def test_rows_select_from_a_position_on(layer: LayerPolicy) -> None:
    """Before it some page is dense, or all that could be selected are."""
    page, rest = divmod(selects_from(model(FULL, layer)), PAGE_TOKENS)
    assert rest == 0
    assert page >= layer.dense_pages
    assert len(layer.candidates(page)) > layer.selected_pages
    earlier = layer.candidates(page - 1)
    assert page - 1 < layer.dense_pages or len(earlier) <= layer.selected_pages


def chunk(policy: ModelPolicy, start: int, *, tokens: int = 1, answer: int | None = 0) -> Chunk:
    """One row of a step."""
    view = View(policy, Zones(answer, answer))
    return Chunk(SequenceId(1), start, np.zeros(tokens, np.uint32), (), True, view)


def test_groups_are_policies() -> None:
    """Rows that see everything are one group, whatever they call it."""
    hybrid, window = model(FULL, HYBRID), replace(model(WINDOW), name="window")
    also_full = ModelPolicy("full", (FULL, FULL))
    first = selects_from(hybrid)
    chunks = [
        chunk(FULL_MODEL, 5),
        chunk(hybrid, first),
        chunk(window, 0),
        chunk(also_full, 9),
        chunk(hybrid, first + 1),
        chunk(hybrid, first - 1, answer=first),
        chunk(replace(model(FULL, EXACT), name="exact"), first - 1),
    ]
    assert captured_groups(chunks) == [
        Group(FULL_MODEL, [0, 3, 5, 6]),
        Group(hybrid, [1, 4]),
        Group(window, [2]),
    ]


@pytest.mark.parametrize(
    "row",
    [
        chunk(FULL_MODEL, 5, tokens=2),
        chunk(model(HYBRID, LATER), selects_from(model(HYBRID))),
        chunk(model(HYBRID), 5000, answer=5001),
        chunk(model(EXACT), 5000),
    ],
    ids=["a prompt", "half of the layers", "the end of a task", "another selector"],
)
def test_one_row_without_a_graph_keeps_the_step_from_it(row: Chunk) -> None:
    """A step is run as a whole."""
    assert captured_groups([chunk(FULL_MODEL, 5), row]) is None


class Recorder:
    """A kernel that only looks at its block table."""

    def __init__(self) -> None:
        self.seen: torch.Tensor | None = None

    def __call__(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        tables: FoldedTables,
        *,
        scale: float,
        window: tuple[int, int],
    ) -> Attended:
        """Nothing is attended to."""
        self.seen = tables.block_table
        return Attended(torch.zeros_like(query), torch.zeros(query.shape[:2]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_chosen_does_not_depend_on_who_chooses(dtype: torch.dtype) -> None:
    """In 16 bits many pages promise the same: blocks together, alone, and rows of a step agree."""
    pages, policy = 40, replace(HYBRID, dense_pages=0)
    tokens = pages * PAGE_TOKENS
    document = Document(tokens, seed=5)
    document.write(0, tokens)
    assert document.layer.bounds is not None
    layer = replace(document.layer, bounds=document.layer.bounds.to(dtype))
    query = document.query.to(dtype)

    def chosen(start: int, end: int, zones: Zones) -> torch.Tensor:
        planned = layer_plan(document.rows(start, end), [policy], [zones]).selecting[0]
        return Selection(planned, CPU).select(query[start:end][planned.queries], layer)

    start = tokens - 8 * PAGE_TOKENS
    alone = [chosen(at, at + PAGE_TOKENS, Zones()) for at in range(start, tokens, PAGE_TOKENS)]
    assert torch.equal(chosen(start, tokens, Zones()), torch.cat(alone))
    positions = list(range(tokens - 60, tokens))
    singly = [chosen(at, at + 1, Zones(0, 0)) for at in positions]
    tables = torch.from_numpy(document.table).expand(len(positions), -1)
    kernel = Recorder()
    keys = torch.tensor(positions, dtype=torch.int32) + 1
    rows = DecodeAttention(FoldedBackend(kernel), model(policy), tables, keys)
    rows.attend(0, query[positions], layer, scale=SCALE, window=None)
    assert kernel.seen is not None
    blocks = kernel.seen[:, : policy.selected_pages].view(len(positions), KV_HEADS, -1)
    heads = torch.arange(KV_HEADS)[:, None]
    assert torch.equal(blocks.long(), torch.cat(singly) * KV_HEADS + heads)


def test_an_answer_through_graph_buffers(tmp_path: Path) -> None:
    """Pages that fill up meanwhile are selected from later on; two policies share the steps."""
    model = load(tiny_decoder("qwen2", tmp_path), "eager")
    model.set_attn_implementation(seam.ATTENTION)
    layers = len(probe(model, CPU))
    hybrid = ModelPolicy("hybrid", (FULL, *[HYBRID] * (layers - 1)))
    plain, graphed = (runner_of(model) for _ in "ab")
    graphed.graphs = DecodeGraphs(
        graphed.decode, (1, 2), CPU, blocks=10, scratch_page=20, capture=repeat_eagerly
    )
    start = selects_from(hybrid) + 10
    tokens = np.random.default_rng(0).integers(3, VOCABULARY, 1800).astype(np.uint32)
    tables = np.random.default_rng(1).permutation(20).astype(np.int32).reshape(2, 10)
    views = [View(hybrid, Zones(start - 5, start)), View(FULL_MODEL, Zones(start - 5, start))]

    def step(first: int, last: int) -> StepPlan:
        pages = -(-last // PAGE_TOKENS)
        return StepPlan(
            tuple(
                Chunk(SequenceId(i), first, tokens[first:last], (table[:pages],), True, view)
                for i, (table, view) in enumerate(zip(tables, views, strict=True))
            )
        )

    for runner in (plain, graphed):
        runner.run(step(0, start))
    alone = (*range(1530, 1540), *range(1790, 1800))
    assert start < alone[0]
    for first, last in pairwise(sorted({start, *alone, *(at + 1 for at in alone)})):
        expected, actual = (runner.run(step(first, last)) for runner in (plain, graphed))
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def runner_of(model: torch.nn.Module) -> Runner:
    """A runner over emulated paged kernels, with what policies select by."""
    layers = [
        shape.pages(21, dtype=torch.float32, device=CPU, bounds=True) for shape in probe(model, CPU)
    ]
    return Runner(model, layers, BACKENDS["flash2"])
