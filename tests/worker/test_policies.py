"""Attention policies over paged backends, against the definition that writes out every score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.base import Attended, Backend
from longspan.worker.attention.by_phase import ByPhase
from longspan.worker.attention.centroids import make_centroids
from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.flash2 import Flash2
from longspan.worker.attention.flash3 import Flash3
from longspan.worker.attention.flash4 import Flash4
from longspan.worker.attention.folded import FoldedBackend
from longspan.worker.attention.four_bit_keys import make_four_bit_keys
from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.linear.feature_maps import FeatureMap
from longspan.worker.attention.linear.hedgehog import Hedgehog
from longspan.worker.attention.linear.page_sums import make_page_sums
from longspan.worker.attention.naive import NaiveBackend
from longspan.worker.attention.naive_policy import attend_naively
from longspan.worker.attention.policy import FULL, Far, Kind, LayerPolicy, ModelPolicy, Selector
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.retention import retention
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.selection import STRIDE
from longspan.worker.attention.selectors import exact, quest
from longspan.worker.attention.step_attention import StepAttention
from longspan.worker.attention.tiled import TiledBackend
from longspan.worker.attention.torch_varlen import VarlenBackend
from longspan.worker.attention.zones import Zones
from longspan.worker.generation.sequence import HOLE
from tests.worker import flash_emulator as emulator

CPU = torch.device("cpu")
VARLEN = partial(emulator.torch_varlen, enable_gqa=True)
BACKENDS: dict[str, Backend] = {
    "naive": NaiveBackend(),
    "cpu": CpuBackend(),
    "flash2": FoldedBackend(Flash2(emulator.flash2_varlen, emulator.flash2_with_kvcache)),
    "flash3": FoldedBackend(Flash3(emulator.flash3_with_kvcache)),
    "flash4": FoldedBackend(Flash4(emulator.flash4_varlen, 0)),
    "flash4 + 2": FoldedBackend(
        ByPhase(
            Flash4(emulator.flash4_varlen, 1, hopper=True),
            Flash2(emulator.flash2_varlen, emulator.flash2_with_kvcache),
        )
    ),
    "varlen": VarlenBackend(VARLEN, emulator.AuxRequest(lse=True)),
    "tiled": TiledBackend(),
}
WINDOW = LayerPolicy(kind=Kind.WINDOW, prefix_pages=1, window_pages=2)
HYBRID = LayerPolicy(
    kind=Kind.HYBRID, prefix_pages=1, window_pages=1, selected_pages=2, dense_pages=2
)
HIERARCHICAL = replace(HYBRID, kind=Kind.HIERARCHICAL, far=Far.CENTROID)
SUMMARY = LayerPolicy(kind=Kind.HIERARCHICAL, prefix_pages=1, window_pages=1, far=Far.CENTROID)
EXACT = replace(HYBRID, selector=Selector.EXACT)
LINEAR = replace(HIERARCHICAL, far=Far.LINEAR)
LOW_BIT = replace(HYBRID, selector=Selector.LOW_BIT)
POLICIES = {
    "full": FULL,
    "window": WINDOW,
    "hybrid": HYBRID,
    "hierarchical": HIERARCHICAL,
    "summary": SUMMARY,
    "exact": EXACT,
    "linear": LINEAR,
    "low-bit": LOW_BIT,
}
SELECTING = [HYBRID, HIERARCHICAL, EXACT, LINEAR, LOW_BIT]
SCALE = 0.2
HEADS, KV_HEADS, DIM = 6, 2, 16


@torch.no_grad()
def hedgehog(kv_heads: int = KV_HEADS, dim: int = DIM) -> Hedgehog:
    """Maps with weights of their own."""
    numbers = torch.Generator().manual_seed(1)
    found = Hedgehog(HEADS, kv_heads, dim)
    for weight in found.parameters():
        weight.add_(torch.randn(weight.shape, generator=numbers) / 4)
    return found.requires_grad_(False)


class Document:
    """A random sequence, its pages shuffled in a pool that is full of other numbers.

    Args:
        tokens: its length.
        dim: numbers of a head.
        latent: one kv head whose values are the first numbers of its keys.
    """

    def __init__(self, tokens: int, *, seed: int = 0, latent: bool = False, dim: int = DIM) -> None:
        numbers = torch.Generator().manual_seed(seed)
        kv_heads = 1 if latent else KV_HEADS
        self.query = torch.randn(tokens, HEADS, dim, generator=numbers)
        self.keys = torch.randn(tokens, kv_heads, dim, generator=numbers)
        self.values = torch.randn(tokens, kv_heads, dim, generator=numbers)
        if latent:
            self.values = self.keys[..., : dim // 2]
        pages = -(-tokens // PAGE_TOKENS)
        order = np.random.default_rng(seed).permutation(pages + 3)
        self.table = order[:pages].astype(np.int32)
        shape = (pages + 3, kv_heads, PAGE_TOKENS, dim)
        poison = torch.full(shape, 1e4)
        bounds = quest.bounds(poison)
        pool = poison.clone()
        values = pool[..., : dim // 2] if latent else poison.clone()
        centroids = make_centroids(pool, values)
        centroids.write(torch.arange(pages + 3), pool, values)
        self.maps: FeatureMap = hedgehog(kv_heads, dim)
        four_bit = make_four_bit_keys(kv_heads, pages + 3, PAGE_TOKENS, dim, CPU)
        four_bit.write(torch.arange(pages + 3), pool)
        self.layer = LayerPages(pool, values, bounds, centroids, four_bit=four_bit)

    def round_to(self, dtype: torch.dtype) -> None:
        """Keep only numbers that this type has."""
        self.query, self.keys, self.values = (
            x.to(dtype).float() for x in (self.query, self.keys, self.values)
        )

    def keep_sums(self, maps: FeatureMap) -> None:
        """Keep linear states of the pages too, by these maps."""
        sums = make_page_sums(maps, self.layer.keys, self.layer.values, scale=SCALE)
        sums.sums.fill_(float("nan"))
        self.maps, self.layer = maps, replace(self.layer, page_sums=sums)

    def reference(self, policy: LayerPolicy, zones: Zones) -> Attended:
        """What the definition says of the whole sequence."""
        return attend_naively(
            self.query,
            self.keys,
            self.values,
            policy,
            zones,
            scale=SCALE,
            stride=STRIDE,
            maps=self.maps,
        )

    def rows(self, start: int, end: int) -> AttentionRows:
        """One chunk."""
        table = self.table[: -(-end // PAGE_TOKENS)]
        return AttentionRows(np.array([start]), np.array([end - start]), [table])

    def write(self, start: int, end: int) -> None:
        """Store the keys of a chunk, as the seam does."""
        slots = self.rows(start, end).slots(CPU)
        keys, values = (x[start:end].transpose(0, 1) for x in (self.keys, self.values))
        self.layer.write(slots, keys, values)

    def attend(
        self, backend: Backend, policy: LayerPolicy, zones: Zones, cuts: Sequence[int]
    ) -> Attended:
        """The same chunk by chunk."""
        parts = []
        if policy.far is Far.LINEAR and self.layer.page_sums is None:
            self.keep_sums(self.maps)
        for start, end in pairwise([0, *cuts, len(self.query)]):
            self.write(start, end)
            view = View(ModelPolicy("test", (policy,)), zones)
            step = StepAttention([backend], [self.rows(start, end)], [view], CPU)
            parts.append(
                step.attend(0, self.query[start:end], self.layer, scale=SCALE, window=None)
            )
        return Attended(torch.cat([p.out for p in parts]), torch.cat([p.lse for p in parts]))


def assert_close(expected: Attended, actual: Attended) -> None:
    """Both outputs agree to float32 rounding of scores that reach some tens."""
    torch.testing.assert_close(actual.out, expected.out, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(actual.lse, expected.lse, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_backend_equals_the_definition(name: str, policy: str) -> None:
    """Document, task and answer of a sequence of six pages and a bit."""
    assert_as_defined(BACKENDS[name], POLICIES[policy], Document(1600))


@pytest.mark.parametrize("name", ["naive", "cpu", "tiled"])
@pytest.mark.parametrize("policy", POLICIES)
def test_latents_are_selected_like_keys(name: str, policy: str) -> None:
    """MLA: one kv head whose values are a part of its keys."""
    assert_as_defined(BACKENDS[name], POLICIES[policy], Document(1600, latent=True))


def assert_as_defined(backend: Backend, policy: LayerPolicy, document: Document) -> None:
    """Chunk by chunk as an engine would; the answer comes token by token."""
    zones = Zones(task_start=1500, answer_start=1595)
    cuts = [512, 1024, 1500, 1550, *range(1595, 1600)]
    expected = document.reference(policy, zones)
    assert_close(expected, document.attend(backend, policy, zones, cuts))


@settings(max_examples=10, deadline=None)
@given(
    cuts=st.sets(st.sampled_from([256, 512, 768, 1024, 1280, 1700, 1750, 1790]), max_size=6),
    seed=st.integers(0, 5),
    policy=st.sampled_from(SELECTING),
)
def test_any_allowed_cutting_gives_the_same(cuts: set[int], seed: int, policy: LayerPolicy) -> None:
    """Chunks end at pages while documents are read, anywhere behind them."""
    zones = Zones(task_start=1700, answer_start=1790)
    one, many = (
        Document(1800, seed=seed).attend(CpuBackend(), policy, zones, parts)
        for parts in ([], sorted(cuts))
    )
    assert_close(one, many)


@settings(max_examples=10, deadline=None)
@given(cuts=st.sets(st.integers(1, 1799), max_size=6), seed=st.integers(0, 5))
def test_a_window_may_be_cut_anywhere(cuts: set[int], seed: int) -> None:
    """What a window sees depends on positions alone."""
    document = Document(1800, seed=seed)
    expected = document.reference(WINDOW, Zones())
    assert_close(expected, document.attend(CpuBackend(), WINDOW, Zones(), sorted(cuts)))


@pytest.mark.parametrize("policy", SELECTING, ids=lambda policy: policy.kind)
def test_a_document_does_not_depend_on_the_task_behind_it(policy: LayerPolicy) -> None:
    """Two tasks, and none: the outputs at the document's positions are the same bits."""
    outs = []
    for seed, zones in ((1, Zones(1500, 1790)), (2, Zones(1500, 1600)), (3, Zones())):
        document = Document(1800, seed=7)
        numbers = torch.Generator().manual_seed(seed)
        for x in (document.query, document.keys, document.values):
            x[1500:] = torch.randn(x[1500:].shape, generator=numbers)
        cuts = [512, 1024, 1280]
        outs.append(document.attend(CpuBackend(), policy, zones, cuts).out[:1280])
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("policy", SELECTING, ids=lambda policy: policy.kind)
def test_nothing_is_seen_before_it_is_there(policy: LayerPolicy) -> None:
    """Causality: what comes later changes no earlier output, block by block."""
    before, after = Document(1800, seed=4), Document(1800, seed=4)
    for x in (after.query, after.keys, after.values):
        x[1280:] += 1
    cuts = [512, 1024, 1280]
    one, other = (d.attend(CpuBackend(), policy, Zones(), cuts).out for d in (before, after))
    assert torch.equal(one[:1280], other[:1280])
    assert not torch.equal(one[1280:], other[1280:])


@pytest.mark.parametrize("policy", SELECTING, ids=lambda policy: policy.kind)
def test_selecting_all_pages_is_full_attention(policy: LayerPolicy) -> None:
    """With nothing left out a selecting layer is a full one."""
    everything = replace(policy, selected_pages=100, dense_pages=0)
    document = Document(1500)
    expected = document.reference(FULL, Zones())
    assert_close(expected, document.attend(CpuBackend(), everything, Zones(), [256, 1024]))


def test_a_window_over_all_is_full_attention() -> None:
    """With nothing outside of it a window hides nothing."""
    wide = replace(WINDOW, window_pages=100)
    document = Document(1500)
    expected = document.reference(FULL, Zones())
    assert_close(expected, document.attend(CpuBackend(), wide, Zones(), [300, 1024]))


def test_pages_outside_a_window_are_never_read() -> None:
    """They may be given away: filled with NaN, they change nothing."""
    document = Document(1800)
    expected = document.reference(WINDOW, Zones())
    document.write(0, 1792)
    hidden = document.table[1 : 1792 // PAGE_TOKENS - WINDOW.window_pages]
    document.layer.keys[hidden] = float("nan")
    document.layer.values[hidden] = float("nan")
    document.write(1792, 1800)
    step = StepAttention(
        [CpuBackend()],
        [document.rows(1792, 1800)],
        [View(ModelPolicy("test", (WINDOW,)), Zones())],
        CPU,
    )
    actual = step.attend(0, document.query[1792:], document.layer, scale=SCALE, window=None)
    torch.testing.assert_close(actual.out, expected.out[1792:], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", BACKENDS)
def test_sequences_of_all_policies_share_a_step(name: str) -> None:
    """Every sequence of a packed row gets its own policy's attention."""
    documents = [Document(1700, seed=seed) for seed in range(4)]
    zones = Zones(task_start=1690, answer_start=1695)
    pages = sum(len(d.layer.keys) for d in documents)
    shape = (pages, KV_HEADS, PAGE_TOKENS, DIM)
    keys, values = torch.empty(shape), torch.empty(shape)
    bounds, centroids = torch.empty(2, pages, 16, 2 * DIM), make_centroids(keys, values)
    pool = LayerPages(keys, values, bounds, centroids)
    tables, first = [], 0
    for document in documents:
        document.write(0, 1700)
        own = slice(first, first + len(document.layer.keys))
        pool.keys[own], pool.values[own] = document.layer.keys, document.layer.values
        known = document.layer.bounds, document.layer.centroids
        assert known[0] is not None
        assert known[1] is not None
        bounds[:, own] = known[0]
        centroids.keys[:, own], centroids.values[:, own] = known[1].keys, known[1].values
        tables.append(document.table + np.int32(first))
        first = own.stop
    starts, ends = np.array([1699, 1696, 1280, 1690]), np.array([1700, 1697, 1700, 1699])
    rows = AttentionRows(
        starts, ends - starts, [t[: -(-e // 256)] for t, e in zip(tables, ends, strict=True)]
    )
    policies = (HYBRID, WINDOW, HIERARCHICAL, HIERARCHICAL)
    views = [View(ModelPolicy("test", (policy,)), zones) for policy in policies]
    query = torch.cat([d.query[s:e] for d, s, e in zip(documents, starts, ends, strict=True)])
    actual = StepAttention([BACKENDS[name]], [rows], views, CPU).attend(
        0, query, pool, scale=SCALE, window=None
    )
    expected = [
        document.reference(policy, zones).out[start:end]
        for document, policy, start, end in zip(documents, policies, starts, ends, strict=True)
    ]
    torch.testing.assert_close(actual.out, torch.cat(expected), atol=2e-5, rtol=1e-4)


def test_quest_bounds_no_score_from_below() -> None:
    """The bound of a page is at least the best score of its keys."""
    query, keys = torch.randn(2, 1, 9, DIM), torch.randn(5, 2, PAGE_TOKENS, DIM)
    found = quest.scores(query, quest.bounds(keys))
    best = torch.einsum("hgrd,phkd->hgrpk", query, keys).amax((2, 4))
    assert bool((found >= best - 1e-5).all())
    naive = torch.stack([quest.naive_scores(query[h, 0], keys[:, h]) for h in range(2)])
    torch.testing.assert_close(found[:, 0], naive)


def test_what_stands_for_a_page_outlives_it() -> None:
    """It is found by the page's number; the page itself is filled with NaN behind the window."""
    document = Document(2000)
    expected = document.reference(SUMMARY, Zones())
    numbers = np.random.default_rng(1).permutation(40)[: len(document.table)].astype(np.int32)
    layer = document.layer
    layer = replace(
        layer, bounds=None, centroids=make_centroids(layer.keys, layer.values, pages=40)
    )
    view = View(ModelPolicy("test", (SUMMARY,)), Zones())
    parts = []
    for start, end in pairwise([0, 300, 700, 1300, 1800, 1999, 2000]):
        rows = document.rows(start, end)
        rows = replace(rows, numbers=[numbers[: len(rows.block_tables[0])]])
        keys, values = (x[start:end].transpose(0, 1) for x in (document.keys, document.values))
        layer.write(rows.slots(CPU, bounds=False), keys, values)
        hidden = document.table[1 : max(1, start // PAGE_TOKENS - SUMMARY.window_pages)]
        layer.keys[hidden] = layer.values[hidden] = float("nan")
        step = StepAttention([CpuBackend()], [rows], [view], CPU)
        parts.append(step.attend(0, document.query[start:end], layer, scale=SCALE, window=None))
    assert_close(
        expected, Attended(torch.cat([p.out for p in parts]), torch.cat([p.lse for p in parts]))
    )


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("window", [24, 300, 600])
@pytest.mark.parametrize("chunk", [(1536, 2000), (1800, 1900), (1999, 2000)])
def test_pages_behind_a_layers_own_window_may_be_gone(
    name: str, window: int, chunk: tuple[int, int]
) -> None:
    """Their places in the block table are holes, and their memory is anybody's."""
    document, backend = Document(2000), BACKENDS[name]
    document.write(0, 2000)
    rows, layer = document.rows(*chunk), document.layer
    query = document.query[slice(*chunk)]
    plan = backend.plan(rows, CPU)
    expected = backend.attend(query, layer, plan, scale=SCALE, window=window)
    gone = retention(FULL, window, PAGE_TOKENS).droppable(chunk[0] // PAGE_TOKENS)
    assert gone
    table = rows.block_tables[0].copy()
    layer.keys[table[list(gone)]] = layer.values[table[list(gone)]] = float("nan")
    table[list(gone)] = HOLE
    plan = backend.plan(replace(rows, block_tables=[table]), CPU)
    assert_close(expected, backend.attend(query, layer, plan, scale=SCALE, window=window))


def test_the_exact_selector_finds_what_bounds_do_not() -> None:
    """A block of keys in many directions promises more than the one that is looked for."""
    looked_for = torch.zeros(DIM)
    looked_for[:4] = 1.0
    page = torch.zeros(PAGE_TOKENS, DIM)
    spread, right = page.clone(), page.clone()
    for number in range(4):  # no key has all four numbers, the block's extremes do
        spread[number, number] = 2.0
    right[7, :4] = 1.0
    keys = torch.stack((spread, right))[None]
    query = looked_for.view(1, 1, 1, -1)
    by_bounds = quest.scores(query, quest.bounds(keys[0][:, None]))[0, 0]
    by_keys = exact.scores(query, keys.transpose(0, 1))[0, 0]
    assert by_bounds.tolist() == [8.0, 4.0]
    assert by_keys.tolist() == [2.0, 4.0]
