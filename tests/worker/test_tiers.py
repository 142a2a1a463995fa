"""The tiers themselves: RAM against a dictionary, parts of pages against their tensors."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longspan.blobstore.breaker import Breaker, BreakerLimits, State
from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.store import BlobStore
from longspan.worker.attention.layout import layout
from longspan.worker.attention.linear.feature_maps import elu
from longspan.worker.attention.pool import LayerPages
from longspan.worker.generation.kv_pool import make_pool
from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.label import Label
from longspan.worker.models.probe import LayerShape
from longspan.worker.tiers.lower import LowerTiers
from longspan.worker.tiers.mover import logged
from longspan.worker.tiers.opening import MAGIC
from longspan.worker.tiers.page_tensors import Lying, PageTensors
from longspan.worker.tiers.part import Part
from longspan.worker.tiers.ram import RamTier

NAMES = [bytes((n,)) * 32 for n in range(6)]


@given(
    st.integers(0, 40),
    st.lists(
        st.tuples(st.sampled_from(["put", "get", "forget"]), st.integers(0, 5), st.integers(0, 20))
    ),
)
def test_ram_keeps_what_was_used_last_within_its_budget(
    budget: int, moves: list[tuple[str, int, int]]
) -> None:
    ram = RamTier(budget)
    model: OrderedDict[bytes, bytes] = OrderedDict()
    for kind, number, size in moves:
        name, data = NAMES[number], bytes((number,)) * size
        match kind:
            case "put":
                ram.put(name, memoryview(data), Label("t", f"doc_{number}"))
                if size <= budget:
                    model.pop(name, None)
                    model[name] = data
                    while sum(map(len, model.values())) > budget:
                        model.popitem(last=False)
            case "get":
                found = ram.get(name)
                assert (None if found is None else bytes(found)) == model.get(name)
                if name in model:
                    model.move_to_end(name)
            case _:
                assert ram.forget("t", f"doc_{number}") == (model.pop(name, None) is not None)
        assert ram.used_bytes == sum(map(len, model.values())) <= budget
        assert [name in ram for name in NAMES] == [name in model for name in NAMES]


@pytest.mark.parametrize(("pause_s", "known"), [(1000.0, False), (0.0, True)])
def test_a_disk_that_is_left_alone_has_nothing(tmp_path: Path, pause_s: float, known: bool) -> None:
    """Until its pause is over: whoever looked for pages there would make room for nothing."""
    disk = BlobStore(tmp_path, StoreLimits(1 << 20), magic=MAGIC)
    breaker = Breaker(BreakerLimits(failures=1, pause_s=pause_s))
    lower = LowerTiers(RamTier(0), disk, breaker, b"")
    part = Part(PageKey(bytes(32)), 0)
    assert lower.store(part, memoryview(b"page"), Label("t", "doc_1"), 1.0)
    assert lower.knows(part)
    permit = breaker.admit(time.monotonic())
    assert permit is not None
    breaker.failed(permit, time.monotonic())
    assert lower.knows(part) is known
    lower.close()


def test_what_is_absent_or_there_already_does_not_heal_a_disk(tmp_path: Path) -> None:
    """A disk that cannot be written to still knows what it has; the breaker must open."""
    disk = BlobStore(tmp_path, StoreLimits(1 << 20), magic=MAGIC)
    breaker = Breaker(BreakerLimits(failures=2, pause_s=0.0))
    lower, label = LowerTiers(RamTier(0), disk, breaker, b""), Label("t", "doc_1")
    here, absent = Part(PageKey(bytes(32)), 0), Part(PageKey(b"\x01" * 32), 0)
    assert lower.store(here, memoryview(b"page"), label, 1.0)
    for _ in range(2):
        permit = breaker.admit(time.monotonic())
        assert permit is not None
        breaker.failed(permit, time.monotonic())
        assert lower.store(here, memoryview(b"page"), label, 1.0)
        assert lower.load(absent, 4) is None
    assert breaker.state is not State.CLOSED
    loaded = lower.load(here, 4)
    assert loaded is not None
    assert bytes(loaded) == b"page"
    assert breaker.state.name == State.CLOSED.name
    lower.close()


def test_what_fails_behind_the_stores_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(logged, lambda: [][0])
        assert threads.submit(lambda: 1).result() == 1
    assert "IndexError" in caplog.text


def test_names_of_parts_differ_by_page_group_and_layout() -> None:
    keys = [PageKey(bytes((n,)) * 32) for n in range(3)]
    names = {Part(key, group).name(way) for key in keys for group in (0, 1) for way in (b"a", b"b")}
    assert len(names) == 12


@pytest.mark.parametrize("eight_bit", [(), (0, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bounds", [False, True])
def test_a_part_comes_back_bit_by_bit_where_the_page_lies_then(
    eight_bit: tuple[int, ...], dtype: torch.dtype, bounds: bool
) -> None:
    if bounds and eight_bit:
        pytest.skip("no bounds are kept beside pages in 8 bits")
    shapes = [LayerShape(4, 2, 16, 16, latent=False, scale=0.25)] * 4
    groups = [[0, 2], [1, 3]]
    four_bit = (1, 3) if bounds else ()
    way = layout(groups, eight_bit, four_bit=four_bit, itemsize=dtype.itemsize)
    layers = make_pool(
        shapes,
        way,
        6 * sum(way.sizes),
        dtype,
        torch.device("cpu"),
        bounds=bounds,
        summaries={} if eight_bit or bounds else {1: 6, 3: 6},
        maps={2: elu(), 3: elu()} if bounds else {},
    )
    sizes = way.sizes if eight_bit or bounds else (*way.sizes, 0)
    for layer in layers:
        known, copies = layer.centroids, layer.four_bit
        means = (known.keys, known.values) if known is not None else ()
        sums = layer.page_sums.sums if layer.page_sums is not None else None
        kept = (copies.codes, copies.scales, copies.means) if copies is not None else ()
        for tensor in (layer.keys, layer.values, layer.bounds, *means, sums, *kept):
            if tensor is not None:
                flat = tensor.view(-1).view(torch.uint8) if tensor.is_contiguous() else tensor
                flat.copy_(torch.randint(0, 120, flat.shape))
    tensors = PageTensors(layers, sizes)
    width = sum(sizes)
    here = Lying(1, np.arange(width, 2 * width, dtype=np.int32))
    there = Lying(4, np.arange(4 * width, 5 * width, dtype=np.int32)[::-1].copy())
    for group in range(len(sizes)):
        taken = tensors.read(group, here)
        assert taken.nbytes == tensors.sizes[group] > 0
        before = [tensors.read(other, there).tobytes() for other in range(len(sizes))]
        tensors.write(group, there, taken)
        after = [tensors.read(other, there).tobytes() for other in range(len(sizes))]
        assert after[group] == taken.tobytes() != before[group]
        assert [a == b for a, b in zip(after, before, strict=True)].count(False) == 1
    if bounds:
        assert_alike_but_for_places(layers, here, there)


def assert_alike_but_for_places(layers: Sequence[LayerPages], here: Lying, there: Lying) -> None:
    """What stands for a page lies beside it, and came with it."""
    summed = 0
    for layer in layers:
        one, other = here.frames[layer.frame], there.frames[layer.frame]
        assert layer.centroids is not None
        assert torch.equal(layer.centroids.keys[:, one], layer.centroids.keys[:, other])
        assert torch.equal(layer.centroids.values[:, one], layer.centroids.values[:, other])
        if layer.page_sums is not None:
            assert torch.equal(layer.page_sums.sums[:, one], layer.page_sums.sums[:, other])
            summed += 1
    assert summed == 2


def test_whatever_lies_otherwise_has_another_identity() -> None:
    def identity(shape: LayerShape, dtype: torch.dtype, groups: list[list[int]]) -> bytes:
        way = layout(groups)
        shapes = [shape] * sum(map(len, groups))
        frames = 2 * sum(way.sizes)
        pool = make_pool(shapes, way, frames, dtype, torch.device("cpu"), bounds=False)
        return PageTensors(pool, way.sizes).identity

    shape = LayerShape(4, 2, 16, 16, latent=False)
    # As many bytes each, which mean something else.
    turned = LayerShape(4, 1, 32, 32, latent=False)
    latent = LayerShape(4, 2, 32, 16, latent=True)
    alike = [[0, 1, 2, 3]]
    kinds = [
        (shape, torch.float32, alike),
        (turned, torch.float32, alike),
        (latent, torch.float32, alike),
        (shape, torch.bfloat16, alike),
        (shape, torch.float16, alike),
        (shape, torch.float32, [[0, 1], [2, 3]]),
        (shape, torch.float32, [[0, 2], [1, 3]]),
        (shape, torch.float32, [[0], [1]]),
    ]
    assert len({identity(*kind) for kind in kinds}) == len(kinds)
    assert identity(*kinds[0]) == identity(*kinds[0])
