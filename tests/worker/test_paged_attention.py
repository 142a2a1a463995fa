"""The CPU backend against the definition, over shuffled pages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.base import Attended, Backend
from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.merge import merge, with_sinks
from longspan.worker.attention.naive import NaiveBackend
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows

CPU = torch.device("cpu")
POOL_PAGES = 24


def rows_of(chunks: Sequence[tuple[int, int]], *, seed: int, shared: int = 0) -> AttentionRows:
    """Rows of (start, length) chunks over shuffled pages; the first ``shared`` pages are common."""
    pages = np.random.default_rng(seed).permutation(POOL_PAGES).astype(np.int32)
    common, free = pages[:shared], list(pages[shared:])
    tables = []
    for start, length in chunks:
        count = -(-(start + length) // PAGE_TOKENS)
        own = [free.pop() for _ in range(count - min(count, shared))]
        tables.append(np.concatenate((common[:count], np.array(own, np.int32))))
    starts, lengths = (np.array(column, np.int64) for column in zip(*chunks, strict=True))
    return AttentionRows(starts, lengths, tables)


def layer_of(kv_heads: int, dim: int, *, seed: int, latent: int | None = None) -> LayerPages:
    """A pool filled with random numbers, garbage beyond every sequence included."""
    generator = torch.Generator().manual_seed(seed)
    shape = (POOL_PAGES, kv_heads, PAGE_TOKENS, dim)
    keys = torch.randn(shape, generator=generator)
    if latent is not None:
        return LayerPages(keys, keys[..., :latent])
    return LayerPages(keys, torch.randn(shape, generator=generator))


def assert_same(
    rows: AttentionRows, layer: LayerPages, heads: int, *, window: int | None = None
) -> None:
    """Both outputs of the CPU backend equal the definition's."""
    query = torch.randn(rows.tokens, heads, layer.keys.shape[-1])
    backends: tuple[Backend, ...] = (NaiveBackend(), CpuBackend())
    expected, actual = (
        backend.attend(query, layer, backend.plan(rows, CPU), scale=0.2, window=window)
        for backend in backends
    )
    torch.testing.assert_close(actual.out, expected.out, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(actual.lse, expected.lse, atol=2e-5, rtol=1e-4)


chunk_lists = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 200, 255, 256, 257, 700, 1000]), st.sampled_from([1, 1, 2, 37, 300])
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(
    chunks=chunk_lists,
    heads=st.sampled_from([(4, 4), (6, 2), (4, 1)]),
    dim=st.sampled_from([16, 64]),
    window=st.sampled_from([None, 1, 24, 256, 300, 600, 4096]),
    seed=st.integers(0, 100),
)
def test_cpu_backend_equals_the_definition(
    chunks: list[tuple[int, int]],
    heads: tuple[int, int],
    dim: int,
    window: int | None,
    seed: int,
) -> None:
    """Decode rows and prefill chunks, mixed, with and without a window, give the same numbers."""
    torch.manual_seed(seed)
    rows = rows_of(chunks, seed=seed)
    assert_same(rows, layer_of(heads[1], dim, seed=seed), heads[0], window=window)


@pytest.mark.parametrize("window", [None, 300])
def test_pages_shared_by_sequences_are_read_once_and_right(window: int | None) -> None:
    """Questions about one document share its pages and get their own answers."""
    chunks = [(2 * PAGE_TOKENS + extra, 1) for extra in (1, 5, 9, 200, 255)]
    rows = rows_of(chunks, seed=3, shared=2)
    assert_same(rows, layer_of(2, 32, seed=1), 6, window=window)


def test_latents_are_keys_and_values_at_once() -> None:
    """One kv head whose values are a part of its keys (MLA)."""
    rows = rows_of([(500, 1), (300, 40), (0, 1)], seed=4)
    assert_same(rows, layer_of(1, 32, seed=2, latent=24), 4)


def test_many_runs_of_pages_are_gathered() -> None:
    """A fragmented pool takes another way to the same numbers."""
    rows = rows_of([(PAGE_TOKENS * 20 - 1, 1)], seed=5)
    assert_same(rows, layer_of(2, 16, seed=3), 4)


def test_a_window_as_long_as_the_sequence_changes_nothing() -> None:
    """An infinite window is full attention."""
    rows, layer = rows_of([(400, 100), (499, 1)], seed=6), layer_of(2, 16, seed=4)
    query = torch.randn(rows.tokens, 4, 16)
    backend = CpuBackend()
    whole, windowed = (
        backend.attend(query, layer, backend.plan(rows, CPU), scale=0.3, window=window)
        for window in (None, 500)
    )
    assert torch.equal(whole.out, windowed.out)


def test_merging_an_empty_part_changes_nothing() -> None:
    """A part without keys has lse of minus infinity and no weight."""
    part = Attended(torch.randn(3, 2, 8), torch.randn(3, 2))
    empty = Attended(torch.zeros(3, 2, 8), torch.full((3, 2), float("-inf")))
    merged = merge([part, empty])
    torch.testing.assert_close(merged.out, part.out)
    torch.testing.assert_close(merged.lse, part.lse)


def test_a_learned_sink_takes_its_share_of_the_mass() -> None:
    """GPT-OSS: softmax over the scores and one learned score with a zero value."""
    scores, values, sink = torch.randn(1, 1, 5), torch.randn(1, 5, 8), torch.tensor([0.7])
    attended = Attended(scores.softmax(-1) @ values, scores.logsumexp(-1))
    weights = torch.cat([scores, sink.view(1, 1, 1)], -1).softmax(-1)[..., :5]
    torch.testing.assert_close(with_sinks(attended.out, attended.lse, sink), weights @ values)
