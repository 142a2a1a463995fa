"""How memory is shared where far pages lie on the host, and how pages get into it and out of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.config import load_config
from longspan.server.pool.model_info import ModelInfo
from longspan.server.workers import decoder_pool
from longspan.worker.__main__ import parse
from longspan.worker.attention.host_pages import HostPages
from longspan.worker.attention.host_split import HostNeeds, split, split_of_frames
from longspan.worker.attention.policy import FULL, PRESETS, Far, LayerPolicy
from longspan.worker.attention.policy_file import PolicyFile, write_policy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.failures import StartFailure
from longspan.worker.generation.host_memory import host_bytes, host_needs
from longspan.worker.generation.host_pool import put_on_host
from longspan.worker.generation.kv_pool import make_pool
from longspan.worker.generation.policies import Policies, find_policy, policies_for
from longspan.worker.generation.pool_opening import Pool, open_pool
from longspan.worker.kv.pages import PageTable
from longspan.worker.models.geometry import FAR_SHARE
from longspan.worker.models.probe import LayerShape
from longspan.worker.options import WorkerOptions
from longspan.worker.tiers.page_tensors import Lying, PageTensors
from longspan.worker.tiers.usage import HostUsage, KvUsage

CPU = torch.device("cpu")
CHOOSING, HIERARCHICAL = PRESETS["hybrid"].layer, PRESETS["hierarchical"].layer
SHAPE = LayerShape(heads=4, kv_heads=2, d=8, dv=8, latent=False)
LAYERS, HOSTED = 8, 6
PAGE_BYTES = 2 * 2 * 8 * 4 * PAGE_TOKENS
"""Of one layer, in float32."""

NEEDS = st.builds(
    lambda frame, kept, hosted, bounds, page, chosen: HostNeeds(
        frame, kept + hosted, kept, hosted, bounds, page, chosen
    ),
    st.integers(1, 10**6),
    st.integers(0, 5),
    st.integers(1, 9),
    st.integers(0, 10**5),
    st.integers(1, 10**7),
    st.integers(1, 16),
)
BYTES = st.integers(0, 10**11)


@given(NEEDS, BYTES, BYTES)
def test_what_is_shared_out_is_there(needs: HostNeeds, device: int, host: int) -> None:
    """On the device beside the slots, which a row's pages need whatever there is; on the host."""
    room = split(needs, device, host)
    assert room.slots >= needs.chosen
    slots = room.slots * needs.hosted * needs.frame_bytes
    taken = room.frames * needs.frame_bytes + room.pages * needs.bounds_bytes
    assert 0 <= taken <= max(device - slots, 0)
    assert 0 <= room.pages * needs.page_bytes <= host
    assert room.pages * needs.kept <= room.frames, "each has frames in the layers that keep all"
    left = device - slots - taken
    full = (room.pages + 1) * needs.page_bytes > host
    assert left < (1 + needs.frames) * (needs.frame_bytes + 16 * needs.bounds_bytes) or full


@given(NEEDS, BYTES, BYTES)
def test_what_a_worker_tells_is_enough_to_have_the_same_again(
    needs: HostNeeds, device: int, host: int
) -> None:
    """Whole pages of tokens, and the bytes of its pages on the host."""
    room = split(needs, device, host)
    whole = room.frames // needs.frames
    again = split_of_frames(needs, whole * needs.frames, room.pages * needs.page_bytes)
    assert (again.frames, again.pages) == (room.frames, room.pages)
    assert again.slots >= needs.chosen


@given(BYTES, st.integers(1, 64))
def test_workers_that_start_together_share_the_host(free: int, workers: int) -> None:
    """They all find the same memory free, also where each has a GPU of its own."""
    options = started_with("--replicas", "1", "--host-replicas", str(workers))
    shares = workers * host_bytes(options, free)
    assert FAR_SHARE * free - workers <= shares <= FAR_SHARE * free


def test_a_worker_that_starts_again_has_no_fewer() -> None:
    """Its command line says what the first one told, not what is free by then."""
    config = load_config(["--model", "owner/name"])
    pool = decoder_pool(config, Path("folder"), None)
    first = opened("--kv-bytes", str(3 << 20), "--kv-host-bytes", str(1 << 20))
    assert first.numbers == (1 << 20) // (HOSTED * PAGE_BYTES)
    told = pb.Ready(
        kv_tokens=first.frames // sum(served().sizes) * PAGE_TOKENS,
        kv_host_bytes=first.numbers * first.host_page_bytes,
    )
    again = opened(*pool.again(ModelInfo.of(told)))
    assert (again.frames, again.numbers) == (first.frames, first.numbers)


def opened(*flags: str) -> Pool:
    """The pool of a worker with this command line."""
    shapes = [SHAPE] * LAYERS
    return open_pool(served(), shapes, torch.float32, CPU, started_with(*flags), kept_bytes=0)


def started_with(*flags: str) -> WorkerOptions:
    """The options of a worker with this command line."""
    return WorkerOptions.of(vars(parse(["--socket", "socket", "--model", "model", *flags])))


def served() -> Policies:
    """Two of eight layers see everything."""
    return policies_for("hybrid-host", [SHAPE] * LAYERS, "fingerprint", 4)


def test_needs_are_those_of_the_model() -> None:
    """Two layers a frame: one frame that keeps all, three that do not, a sixteenth for bounds."""
    policies = served()
    assert policies.names == ("hybrid-host", "full", "window")
    assert policies.sizes == (1, 3, 0)
    assert not policies.selects, "nobody chooses pages that lie in frames"
    assert host_needs(policies, [SHAPE] * LAYERS, torch.float32) == HostNeeds(
        frame_bytes=2 * PAGE_BYTES,
        frames=4,
        kept=1,
        hosted=3,
        bounds_bytes=HOSTED * PAGE_BYTES // 16,
        page_bytes=HOSTED * PAGE_BYTES,
        chosen=8,
    )


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ([SHAPE._replace(latent=True)] * LAYERS, "latents"),
        ([SHAPE] * 7 + [SHAPE._replace(kv_heads=1)], "alike"),
    ],
)
def test_models_that_cannot_are_refused(shapes: list[LayerShape], reason: str) -> None:
    with pytest.raises(StartFailure, match=reason):
        find_policy("hybrid-host", shapes, "fingerprint")


@pytest.mark.parametrize("far", [HIERARCHICAL, replace(HIERARCHICAL, far=Far.LINEAR)])
@pytest.mark.parametrize("gone", [replace(CHOOSING, on_host=True), PRESETS["summary"].layer])
def test_far_states_are_found_one_way(far: LayerPolicy, gone: LayerPolicy, tmp_path: Path) -> None:
    """By number where pages are given up, by frame where they stay: never both in one policy."""
    path = tmp_path / "both.json"
    write_policy(path, PolicyFile("both", (FULL, gone, far, *[FULL] * (LAYERS - 3))))
    with pytest.raises(StartFailure, match="beside layers that give their pages up"):
        find_policy(str(path), [SHAPE] * LAYERS, "fingerprint")


def test_a_layer_with_its_own_window_stays_on_the_device() -> None:
    shapes = [SHAPE._replace(window=100 if layer % 2 else None) for layer in range(LAYERS)]
    policies = policies_for("hybrid-host", shapes, "fingerprint", 4)
    assert policies.hosted == {2, 4, 6}
    needs = host_needs(policies, shapes, torch.float32)
    assert needs.page_bytes == 3 * PAGE_BYTES
    assert needs.bounds_bytes == 3 * PAGE_BYTES // 16


def test_pages_go_down_and_come_back() -> None:
    """A tier reads a page from the host, and writes one there; slots forget what was there."""
    policies, shapes = served(), [SHAPE] * LAYERS
    needs = host_needs(policies, shapes, torch.float32)
    room = split(needs, 40 * needs.frame_bytes, 9 * needs.page_bytes)
    frames = room.frames + needs.hosted * room.slots
    pool = make_pool(shapes, policies.layout, frames, torch.float32, CPU, bounds=False)
    layers = put_on_host(pool, shapes, policies.hosted, room)
    on_host = [layer for layer in layers if isinstance(layer, HostPages)]
    assert len(on_host) == HOSTED
    # No slot of a layer is a frame that is handed out, or another layer's slot.
    firsts = {layer.slots.first for layer in on_host}
    assert sorted(firsts) == [room.frames + n * room.slots for n in range(needs.hosted)]
    for layer in on_host:
        keys = torch.randn(SHAPE.kv_heads, PAGE_TOKENS, SHAPE.d)
        lying_in, number = np.array([layer.frame], np.int32), np.array([3], np.int32)
        rows = AttentionRows(np.array([0]), np.array([PAGE_TOKENS]), [lying_in], [number])
        layer.write(rows.slots(CPU), keys, -keys)
        assert torch.equal(layer.host_keys[3], keys)
        assert torch.equal(layer.host_values[3], -keys)
    chosen = torch.full((1, SHAPE.kv_heads, 1), 5)
    for layer in on_host:
        layer.host_keys[5] = layer.host_values[5] = 0
        layer.bring(chosen)
    tensors = PageTensors(layers, policies.sizes)
    assert tensors.sizes[2] == needs.page_bytes + needs.bounds_bytes
    lying = np.arange(4, dtype=np.int32)
    data = tensors.read(2, Lying(3, lying))
    tensors.write(2, Lying(5, lying), data)
    for layer in on_host:
        assert torch.equal(layer.host_keys[5], layer.host_keys[3])
        assert torch.equal(layer.host_values[5], layer.host_values[3])
        assert layer.bounds is not None
        assert torch.equal(layer.bounds[:, 5], layer.bounds[:, 3])
        frame = layer.bring(chosen)[0, 0, 0]
        assert torch.equal(layer.keys[frame, 0], layer.host_keys[5, 0]), "it was copied again"
    table = PageTable(room.frames, policies.sizes, pages=room.pages)
    table.allocate(2)
    resources = pb.Resources()
    KvUsage(table, 1, None, HostUsage(table, layers, needs.page_bytes)).tell(resources)
    copied = 2 * HOSTED * SHAPE.kv_heads
    assert resources.host == pb.Tier(
        pages=2,
        bytes=2 * needs.page_bytes,
        capacity_bytes=room.pages * needs.page_bytes,
        misses=copied,
    )
