"""Layers whose far pages lie on the host, against the definition that writes out every score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.base import Attended, Backend
from longspan.worker.attention.far_whole import attend_whole
from longspan.worker.attention.host_backend import HostBackend
from longspan.worker.attention.host_pages import HostPages
from longspan.worker.attention.host_slots import HostSlots
from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.policy import Kind, LayerPolicy, ModelPolicy, Selector
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.retention import retention
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.selectors.quest import BLOCK_KEYS
from longspan.worker.attention.step_attention import StepAttention
from longspan.worker.attention.zones import Zones
from longspan.worker.generation.sequence import HOLE
from tests.worker.test_policies import (
    BACKENDS,
    CPU,
    DIM,
    HYBRID,
    KV_HEADS,
    SCALE,
    Document,
    assert_close,
)

ON_HOST = replace(HYBRID, on_host=True)
NUMBERS = 40
SLOTS = 5
"""Two rows of two pages fit, a third one waits for its turn."""
NAN = float("nan")


class HostDocument:
    """A document in a pool of which nothing holds numbers but what was written or copied.

    Args:
        document: its numbers.
        slots: of each kv head.
    """

    def __init__(self, document: Document, slots: int = SLOTS) -> None:
        self.document = document
        frames = len(document.layer.keys)
        order = np.random.default_rng(1).permutation(NUMBERS)
        self.numbers = order[: len(document.table)].astype(np.int32)
        self.layer = empty_layer(frames, slots)
        self.slots = slots

    def rows(self, start: int, end: int, policy: LayerPolicy = ON_HOST) -> AttentionRows:
        """A chunk; its frames behind the window are given up, and filled with NaN."""
        rows = self.document.rows(start, end)
        table = rows.block_tables[0].copy()
        gone = list(retention(policy, None, PAGE_TOKENS).droppable(start // PAGE_TOKENS))
        self.layer.keys[table[gone]] = self.layer.values[table[gone]] = NAN
        table[gone] = HOLE
        return replace(rows, block_tables=[table], numbers=[self.numbers[: len(table)]])

    def write(self, rows: AttentionRows) -> None:
        """Store the keys of a chunk, as the seam does."""
        start, end = int(rows.starts[0]), int(rows.ends[0])
        document = self.document
        keys, values = (x[start:end].transpose(0, 1) for x in (document.keys, document.values))
        self.layer.write(rows.slots(CPU), keys, values)

    def attend(
        self,
        backend: Backend,
        zones: Zones,
        cuts: Sequence[int],
        policy: LayerPolicy = ON_HOST,
    ) -> Attended:
        """The document chunk by chunk."""
        parts = []
        view = View(ModelPolicy("test", (policy,)), zones)
        host = HostBackend(backend, self.slots)
        for start, end in pairwise([0, *cuts, len(self.document.query)]):
            rows = self.rows(start, end, policy)
            self.write(rows)
            step = StepAttention([host], [rows], [view], CPU)
            query = self.document.query[start:end]
            parts.append(step.attend(0, query, self.layer, scale=SCALE, window=None))
        return Attended(torch.cat([p.out for p in parts]), torch.cat([p.lse for p in parts]))


def empty_layer(frames: int, slots: int) -> HostPages:
    """Whatever is read without having been written is NaN."""
    pool = (frames + slots, KV_HEADS, PAGE_TOKENS, DIM)
    host = (NUMBERS, KV_HEADS, PAGE_TOKENS, DIM)
    return HostPages(
        torch.full(pool, NAN),
        torch.full(pool, NAN),
        torch.full((KV_HEADS, NUMBERS, PAGE_TOKENS // BLOCK_KEYS, 2 * DIM), NAN),
        host_keys=torch.full(host, NAN),
        host_values=torch.full(host, NAN),
        slots=HostSlots(frames, slots, KV_HEADS, NUMBERS),
    )


ZONES = Zones(task_start=2100, answer_start=2195)
CUTS = [512, 1024, 1792, 2100, 2150, *range(2195, 2200)]


@pytest.fixture(scope="module")
def defined() -> tuple[Document, Attended]:
    """A document with a task and an answer, and what is defined to be seen of it."""
    document = Document(2200)
    return document, document.reference(HYBRID, ZONES)


@pytest.mark.parametrize("name", BACKENDS)
def test_backend_equals_the_definition(name: str, defined: tuple[Document, Attended]) -> None:
    """Frames behind the window and slots that nothing was copied to are NaN."""
    document, expected = defined
    found = HostDocument(document)
    assert_close(expected, found.attend(BACKENDS[name], ZONES, CUTS))
    assert found.layer.slots.misses > 0


def test_where_all_pages_are_on_the_device_nothing_else_is_seen(
    defined: tuple[Document, Attended],
) -> None:
    """As when a policy's fidelity is measured: in pages that hold everything."""
    document, expected = defined
    assert_close(expected, document.attend(BACKENDS["cpu"], ON_HOST, ZONES, CUTS))


@pytest.mark.parametrize("slots", [2, 64])
def test_few_slots_and_many_give_the_same(slots: int, defined: tuple[Document, Attended]) -> None:
    """One row in a turn, or all."""
    document, expected = defined
    found = HostDocument(document, slots)
    assert_close(expected, found.attend(BACKENDS["cpu"], ZONES, CUTS))
    kept = found.layer.slots.hits > found.layer.slots.misses
    assert kept == (slots == 64), "where there is room, an answer finds its pages again"


def test_it_is_hybrid_to_the_bit() -> None:
    """Where pages are chosen; what is seen whole is merged, and rounds otherwise."""
    document, cuts = Document(2200), CUTS[:3]
    on_device = document.attend(BACKENDS["cpu"], HYBRID, Zones(), cuts).out
    on_host = HostDocument(document, 64).attend(BACKENDS["cpu"], Zones(), cuts).out
    choosing = slice(5 * PAGE_TOKENS, None)
    assert torch.equal(on_host[choosing], on_device[choosing])


SHORT_ZONES = Zones(task_start=1700, answer_start=1790)


@cache
def short(seed: int) -> tuple[Document, Attended]:
    """A shorter one, and what is defined to be seen of it."""
    document = Document(1800, seed=seed)
    return document, document.reference(HYBRID, SHORT_ZONES)


@settings(max_examples=10, deadline=None)
@given(
    cuts=st.sets(st.sampled_from([256, 512, 768, 1024, 1280, 1700, 1750, 1790]), max_size=6),
    seed=st.integers(0, 1),
    slots=st.integers(2, 12),
)
def test_any_allowed_cutting_gives_the_same(cuts: set[int], seed: int, slots: int) -> None:
    """However many slots there are, and however the document arrives."""
    document, expected = short(seed)
    found = HostDocument(document, slots).attend(BACKENDS["cpu"], SHORT_ZONES, sorted(cuts))
    assert_close(expected, found)


def test_sequences_share_slots() -> None:
    """Two answers in one step, whose pages lie in one pool."""
    documents = [HostDocument(Document(1800, seed=seed)) for seed in range(2)]
    frames = len(documents[0].document.layer.keys)
    layer = empty_layer(2 * frames, SLOTS)
    tables, numbers = [], []
    order = np.random.default_rng(3).permutation(NUMBERS).astype(np.int32)
    for place, one in enumerate(documents):
        one.layer, one.numbers = layer, order[place * 20 : place * 20 + len(one.numbers)]
        one.document.table += np.int32(place * frames)
        one.write(one.rows(0, 1799))
        rows = one.rows(1799, 1800)
        one.write(rows)
        tables.append(rows.block_tables[0])
        numbers.append(one.numbers[: len(rows.block_tables[0])])
    rows = AttentionRows(np.array([1799] * 2), np.array([1, 1]), tables, numbers)
    view = View(ModelPolicy("test", (ON_HOST,)), SHORT_ZONES)
    query = torch.cat([one.document.query[1799:] for one in documents])
    step = StepAttention([HostBackend(BACKENDS["cpu"], SLOTS)], [rows], [view, view], CPU)
    found = step.attend(0, query, layer, scale=SCALE, window=None).out
    expected = [short(seed)[1].out[1799:] for seed in range(2)]
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_another_document_under_the_same_numbers_is_not_mistaken_for_it() -> None:
    """Slots outlive documents; what lies in them does not outlive what the host has."""
    (first, one), (second, other) = short(0), short(1)
    found = HostDocument(first, 64)
    assert_close(one, found.attend(BACKENDS["cpu"], SHORT_ZONES, [1024, 1799]))
    found.document = second
    assert_close(other, found.attend(BACKENDS["cpu"], SHORT_ZONES, [1024, 1799]))


@pytest.mark.parametrize("values", [DIM, DIM // 2])
def test_whole_pages_are_seen_whole(values: int) -> None:
    """Of any width, with a kernel and without."""
    query, keys = torch.randn(7, 6, DIM), torch.randn(3, 2, 8, DIM)
    held = torch.randn(3, 2, 8, values)
    found = attend_whole(query, keys, held, scale=SCALE)
    flat, known = (x.transpose(0, 1).flatten(1, 2).repeat_interleave(3, 0) for x in (keys, held))
    scores = torch.einsum("qhd,hkd->qhk", query, flat) * SCALE
    expected = torch.einsum("qhk,hkd->qhd", scores.softmax(-1), known)
    assert_close(Attended(expected, scores.logsumexp(-1)), found)


@pytest.mark.parametrize(
    "layer",
    [
        LayerPolicy(kind=Kind.WINDOW, prefix_pages=1),
        replace(HYBRID, kind=Kind.HIERARCHICAL),
        replace(HYBRID, selector=Selector.EXACT),
    ],
)
def test_what_cannot_lie_on_the_host_is_refused(layer: LayerPolicy) -> None:
    with pytest.raises(ValueError, match="host"):
        replace(layer, on_host=True)
