"""Keys in 4 bits: what a page keeps, and that it finds the pages that the keys themselves find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.four_bit_keys import (
    LARGEST,
    LEAST_SCALE,
    FourBitKeys,
    halves,
    make_four_bit_keys,
    packed,
    quantised_pages,
    scaled,
)
from longspan.worker.attention.hadamard import hadamard, rotated
from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.layout import four_bit_bytes
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.selectors import exact, low_bit, quest
from longspan.worker.attention.selectors.places import Places, places_of
from longspan.worker.attention.step_attention import StepAttention
from longspan.worker.attention.zones import Zones
from longspan.worker.generation.kv_pool import make_pool
from longspan.worker.generation.policies import Policies
from longspan.worker.models.probe import LayerShape
from longspan.worker.tiers.page_tensors import Lying, PageTensors
from tests.worker.test_policies import CPU, LOW_BIT, SCALE, Document, assert_close

widths = st.integers(1, 20).map(lambda eights: 8 * eights)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(d=widths, seed=st.integers(0, 99))
def test_a_rotation_keeps_products_and_undoes_itself(d: int, seed: int) -> None:
    one, other = random(2, 5, d, seed=seed)
    rotation = hadamard(d, CPU)
    turned = rotated(one, rotation)
    torch.testing.assert_close(turned @ rotated(other, rotation).T, one @ other.T)
    torch.testing.assert_close(rotated(turned, rotation), one)
    assert len(rotation) in {8, 16, 32, 64, 128}


@settings(max_examples=40, deadline=None)
@given(
    d=widths,
    seed=st.integers(0, 99),
    exponent=st.integers(-20, 15),
    outlier=st.sampled_from([0.0, 1.0, 100.0]),
)
def test_a_number_comes_back_within_half_a_scale(
    d: int, seed: int, exponent: int, outlier: float
) -> None:
    """Of its key, in the rotated page; scales of tiny numbers have few bits themselves."""
    keys = random(2, 3, PAGE_TOKENS, d, seed=seed) * 2.0**exponent
    keys[..., d // 2] += outlier
    known = make_four_bit_keys(3, 4, PAGE_TOKENS, d, CPU)
    known.write(torch.tensor([3, 1]), keys)
    error = (known.restored(torch.tensor([3, 1])) - rotated(keys, known.rotation)).abs()
    scales = known.scales[:, [3, 1]].transpose(0, 1)[..., None].float()
    rounding = 1e-6 * (outlier + 2.0**exponent * 8) * d**0.5
    assert bool((error <= 0.51 * scales + LARGEST * LEAST_SCALE + rounding).all())


@settings(max_examples=30, deadline=None)
@given(d=widths, seed=st.integers(0, 99))
def test_two_codes_fit_a_byte(d: int, seed: int) -> None:
    """All pairs of codes come out of it again, and so do products with them."""
    numbers = torch.Generator().manual_seed(seed)
    codes = torch.randint(-LARGEST, LARGEST + 1, (2, 8, d), generator=numbers, dtype=torch.int8)
    query = torch.randint(-63, 64, (d, 3), generator=numbers, dtype=torch.int8)
    ones = torch.ones(2, 8, 1)
    first, whole = halves(packed(codes))
    assert torch.equal(scaled(first, whole, ones), codes.float())
    first, whole = (torch._int_mm(x.view(-1, d), query).view(2, 4, 3) for x in (first, whole))
    assert torch.equal(scaled(first, whole, ones), codes.float() @ query.float())


def test_the_largest_codes_and_queries_saturate_nothing() -> None:
    """Where an instruction adds two products of bytes in 16 bits, they must fit."""
    for codes in ([7, 7], [-7, 7], [7, -7], [-7, -7]):
        page = torch.tensor(codes, dtype=torch.int8)[:, None].expand(2, 64)
        for sign in (63, -63):
            query = torch.full((64, 1), sign, dtype=torch.int8)
            found = low_bit.page_maxima(packed(page)[None], torch.ones(1, 2).half(), query)
            assert found.item() == max(code * sign * 64 for code in codes)


def test_a_page_of_one_key_or_of_zeros_is_its_mean() -> None:
    keys = random(1, 2, 1, 24).expand(1, 2, PAGE_TOKENS, 24).contiguous()
    known = make_four_bit_keys(2, 2, PAGE_TOKENS, 24, CPU)
    known.write(torch.tensor([0]), keys)
    known.write(torch.tensor([1]), torch.zeros_like(keys))
    torch.testing.assert_close(known.restored(slice(0, 1)), rotated(keys, known.rotation))
    assert not bool(known.restored(slice(1, 2)).any())


def shuffled(keys: torch.Tensor) -> tuple[FourBitKeys, Places]:
    """The same pages in a pool, in other places."""
    pages, kv_heads, _, d = keys.shape
    known = make_four_bit_keys(kv_heads, pages + 3, PAGE_TOKENS, d, CPU)
    table = np.random.default_rng(1).permutation(pages + 3)[:pages].astype(np.int64)
    known.write(torch.from_numpy(table), keys)
    return known, places_of(table, CPU)


@settings(max_examples=15, deadline=None)
@given(
    d=widths, rows=st.sampled_from([1, 3, 32, 33, 70]), pages=st.integers(1, 9), seed=st.integers()
)
def test_scores_are_the_written_out_ones(d: int, rows: int, pages: int, seed: int) -> None:
    """Few rows by integers, many by restored keys; of the first pages of all."""
    seed %= 2**31
    query, keys = random(2, 1, rows, d, seed=seed), random(9, 2, PAGE_TOKENS, d, seed=seed + 1)
    known, places = shuffled(keys)
    found = low_bit.Codes(known, places).scores(query, pages)
    naive = [low_bit.naive_scores(query[head, 0], keys[:pages, head]) for head in range(2)]
    torch.testing.assert_close(found[:, 0], torch.stack(naive), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 40])
def test_places_in_a_row_are_scored_as_any_others(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """In one tile or in many, for either selector that has some."""
    query, keys = random(2, 1, rows, 16), random(7, 2, PAGE_TOKENS, 16)
    known, places = shuffled(keys)
    run = make_four_bit_keys(2, 9, PAGE_TOKENS, 16, CPU)
    run.write(torch.arange(2, 9), keys)
    neighbours = places_of(np.arange(2, 9), CPU)
    pool = torch.cat((torch.full((2, *keys.shape[1:]), 1e4), keys))
    expected = low_bit.Codes(known, places).scores(query, 7)
    by_keys = exact.scores(query, keys)
    for _ in range(2):
        torch.testing.assert_close(low_bit.Codes(run, neighbours).scores(query, 7), expected)
        torch.testing.assert_close(exact.Keys(pool, neighbours).scores(query, 7), by_keys)
        monkeypatch.setattr(low_bit, "BYTES_AT_ONCE", 1)
        monkeypatch.setattr(exact, "NUMBERS_AT_ONCE", 1)


def test_channels_of_large_numbers_hide_no_page() -> None:
    """The best of 64 pages is nearly always among four, among which bounds hardly bring it."""
    among = {low_bit: 0, quest: 0}
    for seed in range(40):
        query, keys = random(1, 64, seed=seed), random(64, PAGE_TOKENS, 64, seed=100 + seed)
        keys[..., :3] = keys[..., :3] * 3 + torch.tensor([20.0, -15.0, 10.0])
        best = exact.naive_scores(query, keys).argmax()
        for selector in among:
            among[selector] += int(best in selector.naive_scores(query, keys).topk(4).indices)
    assert among[low_bit] >= 36
    assert among[quest] <= 8


def test_a_page_that_is_written_again_has_new_codes() -> None:
    """Its former owner's document has left nothing to be selected by."""
    zones = Zones(task_start=1500, answer_start=1595)
    cuts = [512, 1024, 1500, 1550, *range(1595, 1600)]
    former, document = Document(1600, seed=1), Document(1600, seed=2)
    former.attend(CpuBackend(), LOW_BIT, zones, cuts)
    document.layer, document.table = former.layer, former.table[::-1].copy()
    found = document.attend(CpuBackend(), LOW_BIT, zones, cuts)
    assert_close(document.reference(LOW_BIT, zones), found)


def test_a_page_comes_back_from_below_with_its_codes() -> None:
    """In other places than it was; what it is selected by is not computed again."""
    document = Document(1600, seed=3)
    document.write(0, 1600)
    other = Document(1600, seed=4)
    tensors = PageTensors([document.layer], (1,)), PageTensors([other.layer], (1,))
    for number, (here, there) in enumerate(zip(document.table, other.table, strict=True)):
        part = tensors[0].read(0, Lying(number, here[None]))
        tensors[1].write(0, Lying(number, there[None]), part)
    outs = []
    for table, layer in ((document.table, document.layer), (other.table, other.layer)):
        document.table = table
        view = View(ModelPolicy("test", (LOW_BIT,)), Zones(1598, 1599))
        step = StepAttention([CpuBackend()], [document.rows(1599, 1600)], [view], CPU)
        query = document.query[1599:]
        outs.append(step.attend(0, query, layer, scale=SCALE, window=None).out)
    torch.testing.assert_close(*outs)


def kept_bytes(layer: LayerPages) -> int:
    """Of a layer's pages, but for bounds and centroids."""
    kept = [layer.keys, layer.values]
    if layer.four_bit is not None:
        kept += [layer.four_bit.codes, layer.four_bit.scales, layer.four_bit.means]
    return sum(tensor.nbytes for tensor in kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("windows", [(None, None, None, None), (None, 300, None, 300)])
def test_memory_is_what_the_formula_says(
    dtype: torch.dtype, windows: tuple[int | None, ...]
) -> None:
    """The layers that select by them keep them, but for those with a window of their own."""
    shapes = [LayerShape(4, 2, 24, 24, latent=False, window=window) for window in windows]
    policy = ModelPolicy("test", (replace(LOW_BIT), LOW_BIT, LOW_BIT, LOW_BIT))
    served = Policies([policy], shapes, dtype.itemsize)
    frames = 3 * sum(served.sizes)
    layers = make_pool(shapes, served.layout, frames, dtype, CPU, bounds=True)
    assert [layer.four_bit is not None for layer in layers] == [w is None for w in windows]
    lying = {layer.keys.data_ptr(): kept_bytes(layer) for layer in layers}
    for layer in layers:
        lying[layer.keys.data_ptr()] = max(lying[layer.keys.data_ptr()], kept_bytes(layer))
    assert sum(lying.values()) == frames * served.frame_bytes


def test_a_copy_is_an_eighth_of_float32_keys_and_its_scales() -> None:
    keys = PAGE_TOKENS * 64 * 4
    assert four_bit_bytes(8, 64, PAGE_TOKENS) == 8 * (keys // 8 + PAGE_TOKENS * 2 + 64 * 4)
    known = make_four_bit_keys(8, 1, PAGE_TOKENS, 64, CPU)
    assert sum(part.nbytes for part in known.parts(0)) == four_bit_bytes(8, 64, PAGE_TOKENS)
    codes, scales, means = quantised_pages(random(8, PAGE_TOKENS, 64))
    assert packed(codes).nbytes + scales.nbytes + means.nbytes == four_bit_bytes(8, 64, PAGE_TOKENS)
