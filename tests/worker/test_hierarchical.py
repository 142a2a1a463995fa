"""Centroids of far pages: what they are, and that no key is counted twice or left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.base import Attended
from longspan.worker.attention.centroids import make_centroids
from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.far_centroids import FarCentroids
from longspan.worker.attention.layer_plan import View, layer_plan
from longspan.worker.attention.linear.page_sums import make_page_sums
from longspan.worker.attention.naive_policy import attend_naively, part_means
from longspan.worker.attention.policy import (
    CENTROID_TOKENS,
    FULL,
    PRESETS,
    Far,
    Kind,
    LayerPolicy,
    ModelPolicy,
)
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.selection import STRIDE, Selection
from longspan.worker.attention.step_attention import StepAttention
from longspan.worker.attention.zones import NO_ZONES, Zones
from longspan.worker.generation.kv_memory import summary_bytes
from longspan.worker.models.probe import LayerShape
from tests.worker.test_policies import (
    BACKENDS,
    CPU,
    HIERARCHICAL,
    HYBRID,
    LINEAR,
    SCALE,
    WINDOW,
    Document,
    assert_close,
    hedgehog,
)

TOKENS = 2100
BLIND = replace(HIERARCHICAL, far=Far.NONE)


def even(tokens: int, *, seed: int = 0) -> Document:
    """A document in which all keys and values of a part of a page are the same."""
    document = Document(tokens, seed=seed)
    for x in (document.keys, document.values):
        for first in range(0, tokens, CENTROID_TOKENS):
            x[first : first + CENTROID_TOKENS] = x[first].clone()
    return document


@pytest.mark.parametrize("name", BACKENDS)
def test_of_equal_keys_nothing_is_lost_or_counted_twice(name: str) -> None:
    """Where a centroid is what it stands for, a hierarchical layer is a full one."""
    document, zones = even(TOKENS), Zones(2000, 2080)
    cuts = [1024, 2000, 2080, *range(2081, TOKENS)]
    expected = document.reference(FULL, zones)
    assert_close(expected, document.attend(BACKENDS[name], HIERARCHICAL, zones, cuts))
    blind = document.attend(BACKENDS[name], BLIND, zones, cuts)
    assert (blind.lse < expected.lse - 1e-3).any(), "the far pages have mass here"


def test_without_a_far_state_it_is_hybrid() -> None:
    """The same code selects for both: the same bits."""
    one, other = (
        Document(TOKENS).attend(CpuBackend(), policy, NO_ZONES, [1024, 1792])
        for policy in (HYBRID, BLIND)
    )
    assert torch.equal(one.out, other.out)


def test_centroids_are_the_means_of_whole_pages() -> None:
    """Written when a page gets its last token, however its tokens arrived."""
    document = Document(700)
    for start, end in ((0, 200), (200, 511), (511, 700)):
        document.write(start, end)
    known = document.layer.centroids
    assert known is not None
    for stored, written in ((known.keys, document.keys), (known.values, document.values)):
        found = stored[:, document.table[:2]].flatten(1, 2).transpose(0, 1)
        torch.testing.assert_close(found, part_means(written))
        assert bool((stored[:, document.table[2]] == 1e4).all()), "this page is not whole"


def test_a_step_that_needs_no_centroids_writes_none() -> None:
    """What they are kept for is asked for."""
    document = Document(600)
    slots = document.rows(0, 600).slots(CPU, summaries=False)
    document.layer.write(slots, document.keys.transpose(0, 1), document.values.transpose(0, 1))
    known, bounds = document.layer.centroids, document.layer.bounds
    assert known is not None
    assert bounds is not None
    assert bool((known.keys == 1e4).all())
    assert not bool((bounds[:, document.table[0]] == 1e4).any())


def test_latents_keep_no_second_centroid() -> None:
    """MLA: the mean value is a part of the mean key."""
    keys = torch.randn(3, 1, PAGE_TOKENS, 24)
    known = make_centroids(keys, keys[..., :16])
    known.write(torch.arange(3), keys, keys[..., :16])
    assert known.values.data_ptr() == known.keys.data_ptr()
    expected = keys[..., :16].view(3, 1, -1, CENTROID_TOKENS, 16).mean(3).transpose(0, 1)
    torch.testing.assert_close(known.values, expected)


@pytest.mark.parametrize("tokens", [16, 64, 256])
def test_any_part_of_a_page_may_have_a_centroid(tokens: int) -> None:
    """Finer parts tell more: never more mass than the keys have (Jensen), and never less."""
    document = Document(TOKENS)
    coarse, fine, keys = (far_lse(document, size) for size in (256, tokens, 1))
    assert bool((fine <= keys + 1e-5).all())
    assert bool((coarse <= fine + 1e-5).all())


def far_lse(document: Document, tokens: int) -> torch.Tensor:
    """The mass of the far pages of the last page's queries, by centroids of so many keys."""
    far, selection = far_part(document)
    pool = document.layer
    centroids = make_centroids(pool.keys, pool.values, tokens=tokens)
    layer = replace(pool, centroids=centroids)
    centroids.write(torch.arange(len(pool.keys)), pool.keys, pool.values)
    query = document.query[1792:2048]
    return far.attend(query, layer, selection.select(query, layer), scale=SCALE).lse


def far_part(document: Document, **options: int) -> tuple[FarCentroids, Selection]:
    """The plan of the queries at [1792, 2048), all in one block."""
    document.write(0, 2048)
    planned = layer_plan(document.rows(1792, 2048), [HIERARCHICAL], [NO_ZONES])
    (blocks,) = planned.selecting
    return FarCentroids(blocks, CPU, **options), Selection(blocks, CPU)


def test_pages_of_no_sequence_may_hold_anything() -> None:
    """Centroids that nobody wrote are NaN; sequences of different lengths share the step."""
    pool, sequences = packed([2100, 1400, 1900], [HIERARCHICAL] * 3, seed=3)
    assert pool.centroids is not None
    written = torch.zeros(len(pool.keys), dtype=torch.bool)
    for sequence in sequences:
        written[sequence.table[: len(sequence.document.query) // PAGE_TOKENS]] = True
    pool.centroids.keys[:, ~written] = float("nan")
    pool.centroids.values[:, ~written] = float("nan")
    chunks = [(2099, 2100), (1399, 1400), (1899, 1900)]
    zones = [Zones(10, 20)] * 3
    assert_packed("cpu", pool, sequences, chunks, zones)


@pytest.mark.parametrize("numbers", [1, 10_000, 100_000])
def test_tiles_of_any_size_give_the_same(numbers: int) -> None:
    """The bound on memory changes no number."""
    document = Document(3000)
    document.write(0, 3000)
    (blocks,) = layer_plan(document.rows(1024, 3000), [HIERARCHICAL], [NO_ZONES]).selecting
    query = document.query[1024 + blocks.queries]
    selected = Selection(blocks, CPU).select(query, document.layer)
    one, many = (
        FarCentroids(blocks, CPU, numbers=n).attend(query, document.layer, selected, scale=SCALE)
        for n in (2**30, numbers)
    )
    assert_close(one, many)


class Placed:
    """A document in a pool that it shares."""

    def __init__(self, document: Document, table: np.ndarray, policy: LayerPolicy) -> None:
        self.document, self.table, self.policy = document, table, policy

    def reference(self, zones: Zones) -> Attended:
        """What the definition says of the whole sequence."""
        return self.document.reference(self.policy, zones)


def packed(
    lengths: list[int],
    policies: list[LayerPolicy],
    *,
    seed: int,
    kv_heads: int = 2,
    latent: bool = False,
) -> tuple[LayerPages, list[Placed]]:
    """Sequences whose shuffled pages lie among each other in one pool."""
    documents = [Document(n, seed=seed + at, latent=latent) for at, n in enumerate(lengths)]
    if not latent:
        for document in documents:
            heads = document.keys.shape[1]
            document.keys, document.values = (
                x[:, torch.arange(kv_heads) % heads] * (1 + torch.arange(kv_heads)[:, None])
                for x in (document.keys, document.values)
            )
    needed = sum(-(-n // PAGE_TOKENS) for n in lengths)
    order = np.random.default_rng(seed).permutation(needed + 2).astype(np.int32)
    shape = (needed + 2, documents[0].keys.shape[1], PAGE_TOKENS, documents[0].keys.shape[2])
    keys = torch.full(shape, 1e4)
    values = keys[..., : documents[0].values.shape[2]] if latent else keys.clone()
    bounds = torch.full((shape[1], shape[0], 16, 2 * shape[3]), 1e4)
    pool = LayerPages(keys, values, bounds, make_centroids(keys, values))
    maps = hedgehog(shape[1], shape[3])
    if any(policy.far is Far.LINEAR for policy in policies):
        pool = replace(pool, page_sums=make_page_sums(maps, keys, values, scale=SCALE))
    placed, first = [], 0
    for document, policy in zip(documents, policies, strict=True):
        document.maps = maps
        pages = -(-len(document.query) // PAGE_TOKENS)
        table = order[first : first + pages]
        first += pages
        rows = AttentionRows(np.array([0]), np.array([len(document.query)]), [table])
        pool.write(rows.slots(CPU), document.keys.transpose(0, 1), document.values.transpose(0, 1))
        placed.append(Placed(document, table, policy))
    return pool, placed


def assert_packed(
    backend: str,
    pool: LayerPages,
    sequences: list[Placed],
    chunks: list[tuple[int, int]],
    zones: list[Zones],
) -> None:
    """One step over chunks of all sequences is what the definition says of each."""
    starts, ends = (np.array(x, np.int64) for x in zip(*chunks, strict=True))
    tables = [s.table[: -(-e // PAGE_TOKENS)] for s, (_, e) in zip(sequences, chunks, strict=True)]
    rows = AttentionRows(starts, ends - starts, tables)
    views = [
        View(ModelPolicy("test", (sequence.policy,)), zone)
        for sequence, zone in zip(sequences, zones, strict=True)
    ]
    query = torch.cat([s.document.query[a:b] for s, (a, b) in zip(sequences, chunks, strict=True)])
    step = StepAttention([BACKENDS[backend]], [rows], views, CPU)
    actual = step.attend(0, query, pool, scale=SCALE, window=None)
    expected = [sequence.reference(zone) for sequence, zone in zip(sequences, zones, strict=True)]
    assert_close(
        Attended(
            *(
                torch.cat([part[a:b] for part, (a, b) in zip(parts, chunks, strict=True)])
                for parts in zip(*expected, strict=True)
            )
        ),
        actual,
    )


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_step_is_what_the_definition_says(data: st.DataObject) -> None:
    """Chunks and decode rows of sequences under several policies, on a CPU and folded."""
    count = data.draw(st.integers(1, 3))
    lengths = [data.draw(st.integers(1, 2400)) for _ in range(count)]
    wide = replace(HIERARCHICAL, prefix_pages=2, window_pages=0, dense_pages=0, selected_pages=1)
    known = [FULL, WINDOW, HYBRID, HIERARCHICAL, BLIND, LINEAR, wide, replace(wide, far=Far.LINEAR)]
    policies = [data.draw(st.sampled_from(known)) for _ in range(count)]
    latent = data.draw(st.booleans())
    kv_heads = data.draw(st.sampled_from([1, 2, 3, 6]))
    pool, sequences = packed(
        lengths, policies, seed=data.draw(st.integers(0, 9)), kv_heads=kv_heads, latent=latent
    )
    chunks, zones = [], []
    for length in lengths:
        task = data.draw(st.integers(0, length))
        answer = data.draw(st.integers(task, length))
        start = data.draw(st.integers(0, length - 1))
        decode = data.draw(st.booleans())
        # Chunks of a document begin at pages.
        start = length - 1 if decode else start // PAGE_TOKENS * PAGE_TOKENS
        zones.append(Zones(min(task, start), min(answer, start)) if decode else Zones(task, answer))
        chunks.append((start, length))
    backends = ["cpu", "tiled"] if latent else ["cpu", "flash2", "varlen"]
    assert_packed(data.draw(st.sampled_from(backends)), pool, sequences, chunks, zones)


def test_one_token_of_an_answer_is_a_prefill_of_one_row() -> None:
    """Alone or read again with the others behind it: the same attention."""
    document, zones = Document(TOKENS), Zones(2000, 2040)
    one = document.attend(CpuBackend(), HIERARCHICAL, zones, [2040, *range(2041, TOKENS)])
    many = document.attend(CpuBackend(), HIERARCHICAL, zones, [2040])
    assert_close(one, many)


def test_far_pages_are_looked_at_by_their_means_alone() -> None:
    """The definition, of one query and one head, in a few lines."""
    document = Document(1500)
    policy = LayerPolicy(kind=Kind.HIERARCHICAL, prefix_pages=1, selected_pages=1, far=Far.CENTROID)
    row, head = 1499, 4
    keys, values = (x[:, head // 3] for x in (document.keys, document.values))
    query = document.query[row, head] * SCALE
    zones = Zones(1, 2)
    tops = [quest_bound(document, page, head // 3, row) for page in range(1, 5)]
    chosen = 1 + int(np.argmax(tops))
    near = [p for p in range(1500) if p // PAGE_TOKENS in (0, chosen, 5)]
    parts = [p for p in range(1500 // 64) if 1 <= p * 64 // 256 < 5 and p * 64 // 256 != chosen]
    means = torch.stack([keys[p * 64 : p * 64 + 64].mean(0) for p in parts])
    mean_values = torch.stack([values[p * 64 : p * 64 + 64].mean(0) for p in parts])
    weights = torch.cat(((keys[near] @ query).exp(), 64 * (means @ query).exp()))
    expected = weights @ torch.cat((values[near], mean_values)) / weights.sum()
    actual = attend_naively(
        document.query, document.keys, document.values, policy, zones, scale=SCALE, stride=STRIDE
    )
    torch.testing.assert_close(actual.out[row, head], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(actual.lse[row, head], weights.sum().log())


def quest_bound(document: Document, page: int, kv_head: int, row: int) -> float:
    """The best bound of a page's blocks for the query heads that share a kv head."""
    keys = document.keys[page * PAGE_TOKENS : (page + 1) * PAGE_TOKENS, kv_head].view(16, 16, -1)
    heads = document.query[row, kv_head * 3 : kv_head * 3 + 3, None]
    return float(torch.maximum(heads * keys.amax(1), heads * keys.amin(1)).sum(-1).max())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": Kind.HYBRID}, "no far state"),
        ({"kind": Kind.WINDOW, "selected_pages": 0, "dense_pages": 0}, "no far state"),
        ({"selected_pages": 0}, "keeps no pages"),
        ({"selected_pages": 0, "dense_pages": 0, "far": Far.NONE}, "selects pages, or sees"),
        ({"prefix_pages": 0}, "first tokens"),
    ],
)
def test_what_makes_no_sense_is_no_policy(change: dict[str, Any], reason: str) -> None:
    """Each with the reason."""
    with pytest.raises(ValueError, match=reason):
        replace(HIERARCHICAL, **change)


def test_the_memory_that_is_told_counts_centroids() -> None:
    """Four a page, in the layers that look at them, each as large as a token's keys and values."""
    shapes = [LayerShape(6, 2, 16, 16, latent=False), LayerShape(6, 1, 24, 16, latent=True)] * 2
    told = {
        name: summary_bytes(PRESETS[name].of(4), shapes, torch.float32)
        for name in ("full", "hybrid", "hierarchical")
    }
    assert told["full"] == told["hybrid"] == 0
    assert told["hierarchical"] == 4 * (24 + 2 * 32 + 24) * 4


def test_a_far_state_is_part_of_what_a_page_is() -> None:
    """Policies that differ in it alone share no pages."""
    models = [ModelPolicy("x", (replace(HIERARCHICAL, far=far),) * 2).identity() for far in Far]
    assert len(set(models)) == len(Far)


def test_the_preset_is_hybrid_but_for_its_prefix_and_far_state() -> None:
    """2048 tokens from the start are exact, and what is in neither is a centroid."""
    hybrid, preset = PRESETS["hybrid"], PRESETS["hierarchical"]
    assert preset.full_layers == hybrid.full_layers
    same = replace(preset.layer, kind=Kind.HYBRID, prefix_pages=1, far=Far.NONE)
    assert same == hybrid.layer
    assert preset.layer.prefix_pages * PAGE_TOKENS == 2048
    assert preset.layer.has_centroids
