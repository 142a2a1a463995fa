"""Windows that slide by a page are taken together, and give what each gives alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.cpu_prefill import PrefillChunk, prefill
from longspan.worker.attention.cpu_sliding import MOST_BLOCKS, sliding_blocks
from longspan.worker.attention.layer_plan import layer_plan
from longspan.worker.attention.policy import Kind, LayerPolicy
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.zones import NO_ZONES

CPU = torch.device("cpu")
HEADS, DIM = 4, 8
SCALE = DIM**-0.5


def window_rows(
    chunks: list[tuple[int, int]], prefix: int, window: int, numbers: np.random.Generator
) -> tuple[AttentionRows, int]:
    """The rows of a window layer for chunks [start, end) of sequences whose pages lie anywhere."""
    pages = [-(-end // PAGE_TOKENS) for _, end in chunks]
    places = numbers.permutation(sum(pages)).astype(np.int32)
    tables = np.split(places, np.cumsum(pages)[:-1])
    starts = np.array([start for start, _ in chunks], np.int64)
    lengths = np.array([end - start for start, end in chunks], np.int64)
    policy = LayerPolicy(kind=Kind.WINDOW, prefix_pages=prefix, window_pages=window)
    packed = AttentionRows(starts, lengths, tables)
    planned = layer_plan(packed, [policy] * len(chunks), [NO_ZONES] * len(chunks))
    assert planned.fixed is not None
    return planned.fixed.rows, sum(pages)


def pool(pages: int, kv_heads: int, *, latent: bool) -> LayerPages:
    keys, values = (torch.randn(pages, kv_heads, PAGE_TOKENS, DIM) for _ in "kv")
    return LayerPages(keys, keys[..., : DIM // 2] if latent else values)


@settings(max_examples=25, deadline=None)
@given(
    chunks=st.lists(
        st.tuples(st.integers(0, 3000), st.integers(1, 2600)).map(lambda c: (c[0], sum(c))),
        min_size=1,
        max_size=3,
    ),
    prefix=st.integers(1, 3),
    window=st.integers(0, 4),
    kv_heads=st.sampled_from([1, 2, 4]),
    latent=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_together_as_alone(
    chunks: list[tuple[int, int]], prefix: int, window: int, kv_heads: int, latent: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    rows, pages = window_rows(chunks, prefix, window, np.random.default_rng(seed))
    layer = pool(pages, kv_heads, latent=latent)
    query = torch.randn(rows.tokens, HEADS, DIM)
    backend = CpuBackend()
    out, lse = backend.attend(query, layer, backend.plan(rows, CPU), scale=SCALE)
    for row, table in enumerate(rows.block_tables):
        place = slice(int(rows.offsets[row]), int(rows.offsets[row + 1]))
        chunk = PrefillChunk(int(rows.starts[row]), int(rows.ends[row]), table)
        alone = prefill(query[place], layer, chunk, scale=SCALE, window=None)
        torch.testing.assert_close(out[place], alone.out, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(lse[place], alone.lse, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prefix", [1, 2])
def test_whole_pages_behind_a_full_window_are_taken_together(prefix: int) -> None:
    start, end = 20 * PAGE_TOKENS - 100, 44 * PAGE_TOKENS + 50
    rows, _ = window_rows([(start, end)], prefix, 4, np.random.default_rng(0))
    found = list(sliding_blocks(rows))
    # The first and the last row are no whole pages.
    assert [(one.first, one.last) for one in found] == [(1, 17), (17, 25)]
    assert len(rows.starts) == 26
    for one in found:
        assert (len(one.prefix), one.seen) == (prefix, 5)
        assert one.last - one.first <= MOST_BLOCKS
        for row in range(one.first, one.last):
            seen = one.pages[row - one.first :][: one.seen]
            assert rows.block_tables[row].tolist() == [*one.prefix, *seen]


def test_pages_before_the_window_is_full_are_taken_alone() -> None:
    rows, _ = window_rows([(0, 6 * PAGE_TOKENS)], 1, 4, np.random.default_rng(0))
    assert list(sliding_blocks(rows)) == []
