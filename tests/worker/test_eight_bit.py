"""Pages in 8 bits: how far off they are, and that they are read where they lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from longspan.worker.attention.base import Backend
from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.eight_bit import EightBitPages, quantised, restored
from longspan.worker.attention.eight_bit_backend import EightBitBackend
from longspan.worker.attention.layout import layout
from longspan.worker.attention.naive import NaiveBackend
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.generation.kv_pool import make_pool
from longspan.worker.models.probe import LayerShape

CPU = torch.device("cpu")
SHAPE = LayerShape(heads=4, kv_heads=2, d=16, dv=16, latent=False)
PAGES = 12


@example([0.00390625], torch.float32)
@given(
    st.lists(st.floats(-6e4, 6e4, width=32), min_size=1, max_size=40),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_number_comes_back_within_half_a_step(numbers: list[float], dtype: torch.dtype) -> None:
    """A step is a 127th of the token's largest number, which float16 rounds."""
    exact = torch.tensor([numbers], dtype=dtype)
    found = restored(*quantised(exact))
    step = float(exact.float().abs().max()) / 127
    assert (found - exact.float()).abs().max() <= step * 0.6 + 1e-5


def test_zeros_stay_zeros() -> None:
    """Nothing is divided by nothing."""
    assert (restored(*quantised(torch.zeros(3, 8))) == 0).all()


def pool() -> list[LayerPages]:
    """Three layers: two in 8 bits, one not; in the same tensors."""
    lying = layout([[0, 1], [2]], {0, 1}, itemsize=4)
    layers = make_pool([SHAPE] * 3, lying, 2 * PAGES, torch.float32, CPU, bounds=False)
    assert [type(layer) for layer in layers] == [EightBitPages, EightBitPages, LayerPages]
    return layers


def rows(start: int, end: int, frame: int) -> AttentionRows:
    """One chunk of a sequence whose pages lie in reverse, each group in its own frames."""
    table = np.arange(PAGES, dtype=np.int32)[::-1] * 2 + frame
    seen = np.ascontiguousarray(table[: -(-end // PAGE_TOKENS)])
    return AttentionRows(np.array([start]), np.array([end - start]), [seen])


def test_layers_that_share_tensors_do_not_disturb_each_other() -> None:
    """All are written, then read; those in 8 bits lie side by side in the others' room."""
    layers = pool()
    tokens = 3 * PAGE_TOKENS + 50
    written = torch.randn(3, 2, SHAPE.kv_heads, tokens, SHAPE.d)
    for layer, (keys, values) in zip(layers, written, strict=True):
        layer.write(rows(0, tokens, layer.frame).slots(CPU), keys, values)
    for layer, (keys, _) in zip(layers, written, strict=True):
        table = torch.from_numpy(rows(0, tokens, layer.frame).block_tables[0]).long()
        stored = layer.keys[table]
        if isinstance(layer, EightBitPages):
            stored = layer.restore(table).keys
        found = stored.transpose(0, 1).flatten(1, 2)[:, :tokens]
        assert (found - keys).abs().max() < 0.03
        assert (found == keys).all() == (not isinstance(layer, EightBitPages))


@pytest.mark.parametrize("backend", [CpuBackend(), NaiveBackend()])
@pytest.mark.parametrize("chunk", [(0, 700), (700, 701), (300, 900)])
@pytest.mark.parametrize("window", [None, 300])
def test_attention_over_8_bits_is_attention_over_what_they_stand_for(
    backend: Backend, chunk: tuple[int, int], window: int | None
) -> None:
    """Compared with plain pages that hold the restored numbers."""
    layer = pool()[1]
    assert isinstance(layer, EightBitPages)
    start, end = chunk
    keys, values = torch.randn(2, SHAPE.kv_heads, end, SHAPE.d)
    layer.write(rows(0, end, layer.frame).slots(CPU), keys, values)
    everything = torch.arange(2 * PAGES)
    plain = layer.restore(everything)
    query = torch.randn(end - start, SHAPE.heads, SHAPE.d)
    here = rows(start, end, layer.frame)
    expected = backend.attend(query, plain, backend.plan(here, CPU), scale=0.25, window=window)
    restoring = EightBitBackend(backend)
    actual = restoring.attend(query, layer, restoring.plan(here, CPU), scale=0.25, window=window)
    torch.testing.assert_close(actual.out, expected.out, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(actual.lse, expected.lse, atol=1e-6, rtol=1e-6)


def test_selected_pages_are_restored_too() -> None:
    """Each kv head has pages of its own choice beside the row's."""
    layer, backend = pool()[0], CpuBackend()
    assert isinstance(layer, EightBitPages)
    end = 6 * PAGE_TOKENS
    layer.write(rows(0, end, layer.frame).slots(CPU), *torch.randn(2, SHAPE.kv_heads, end, SHAPE.d))
    table = rows(0, end, layer.frame).block_tables[0]
    own = AttentionRows(np.array([PAGE_TOKENS]), np.array([5]), [table[[0, 5]]])
    chosen = torch.from_numpy(table[[[[1, 3], [4, 2]]]].astype(np.int64))
    query = torch.randn(5, SHAPE.heads, SHAPE.d)
    plain = layer.restore(torch.arange(2 * PAGES))
    expected = backend.attend_selected(
        query, plain, backend.plan_selected(own, 2, CPU), chosen, scale=0.25
    )
    restoring = EightBitBackend(backend)
    actual = restoring.attend_selected(
        query, layer, restoring.plan_selected(own, 2, CPU), chosen, scale=0.25
    )
    torch.testing.assert_close(actual.out, expected.out, atol=1e-6, rtol=1e-6)
