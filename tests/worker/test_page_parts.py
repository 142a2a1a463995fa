"""Pages in parts: the same keys through smaller blocks, and what may lie behind the last one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longspan.worker.attention.flash4 import Flash4
from longspan.worker.attention.folded import FoldedBackend
from longspan.worker.attention.page_parts import cut_pool, cut_table, hopper_tile
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from tests.worker import flash_emulator as emulator
from tests.worker.test_attention_gpu_plans import assert_close, compare
from tests.worker.test_paged_attention import CPU, layer_of, rows_of

HOPPER = FoldedBackend(Flash4(emulator.flash4_varlen, 1, hopper=True))


@given(table=st.lists(st.lists(st.integers(0, 8), min_size=3, max_size=3), min_size=1, max_size=4))
@pytest.mark.parametrize("size", [64, 128, 256])
def test_parts_hold_the_same_keys_in_the_same_memory(table: list[list[int]], size: int) -> None:
    """Read through its own table, a pool in parts gives what whole pages give."""
    pool = torch.arange(9 * PAGE_TOKENS * 2).view(9, PAGE_TOKENS, 1, 2)
    whole = torch.tensor(table, dtype=torch.int32)
    parts, cut = cut_pool(pool, size), cut_table(whole, size)
    assert parts.data_ptr() == pool.data_ptr()
    assert cut.dtype == torch.int32
    assert cut.is_contiguous()
    assert torch.equal(parts[cut.long()].flatten(1, 2), pool[whole.long()].flatten(1, 2))


@pytest.mark.parametrize(
    ("dims", "windowed", "tile"),
    [
        ((64, 64), False, 128),
        ((128, 128), True, 128),
        ((192, 128), False, 128),
        ((192, 128), True, PAGE_TOKENS),
        ((192, 192), False, PAGE_TOKENS),
        ((256, 256), False, PAGE_TOKENS),
        ((256, 256), True, 64),
    ],
)
def test_tiles(dims: tuple[int, int], windowed: bool, tile: int) -> None:
    """Of the head sizes that models have."""
    assert hopper_tile(*dims, windowed=windowed) == tile


@pytest.mark.parametrize("window", [None, 300])
def test_nothing_but_the_last_tile_is_read_behind_a_sequence(window: int | None) -> None:
    """NaN in pages of nobody, and in parts of the last page behind that of the last key."""
    chunks = [(0, 100), (300, 200), (500, 12), (0, 256), (128, 30)]
    rows, layer = rows_of(chunks, seed=3), layer_of(2, 64, seed=3)
    holes = set(range(len(layer.keys))) - set(np.concatenate(rows.block_tables).tolist())
    poisoned = LayerPages(layer.keys.clone(), layer.values.clone())
    for pages in (poisoned.keys, poisoned.values):
        pages[list(holes)] = torch.nan
        for table, end in zip(rows.block_tables, rows.ends.tolist(), strict=True):
            pages[table[-1], :, -(-end // 128) * 128 - (len(table) - 1) * PAGE_TOKENS :] = torch.nan
    query = torch.randn(rows.tokens, 4, 64)
    plan = HOPPER.plan(rows, CPU)
    clean, found = (
        HOPPER.attend(query, pages, plan, scale=0.2, window=window) for pages in (layer, poisoned)
    )
    assert torch.equal(found.out, clean.out)
    assert torch.equal(found.lse, clean.lse)


@pytest.mark.parametrize("chunk", [(0, 700), (256, 300), (0, 1)])
def test_a_former_owners_nan_does_not_come_through(chunk: tuple[int, int]) -> None:
    """A page that is begun is zeroed before a kernel reads all of a tile."""
    start, length = chunk
    clean = layer_of(2, 64, seed=5)
    rows = rows_of([chunk], seed=5)
    layer = LayerPages(clean.keys.clone(), clean.values.clone())
    own = slice(start // PAGE_TOKENS, None)
    layer.keys[rows.block_tables[0][own]] = layer.values[rows.block_tables[0][own]] = torch.nan
    keys = torch.randn(2, length, 64)
    layer.write(rows.slots(CPU), keys, keys.flip(-1))
    assert_close(*compare(HOPPER, rows, layer, torch.randn(length, 4, 64)))


def test_full_pages_are_not_zeroed_before() -> None:
    """They have nothing of a former owner."""
    rows = AttentionRows(np.array([0, 5]), np.array([512, 3]), [np.array([4, 2]), np.array([1])])
    assert rows.slots(CPU).fresh is None
