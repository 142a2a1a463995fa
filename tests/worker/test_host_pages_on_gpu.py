"""Pages on the host of a real GPU: pinned memory, real copies and kernels; skipped without one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from longspan.worker.attention.far_whole import attend_whole
from longspan.worker.attention.host_backend import HostBackend
from longspan.worker.attention.host_pages import HostPages
from longspan.worker.attention.host_split import HostSplit
from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.retention import retention
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.select import Kind
from longspan.worker.attention.step_attention import StepAttention
from longspan.worker.generation.host_pool import put_on_host
from longspan.worker.generation.policy_check import policy_check
from longspan.worker.generation.sequence import HOLE
from longspan.worker.models.probe import LayerShape
from longspan.worker.tiers.page_tensors import Lying, PageTensors
from tests.worker.test_attention_on_gpu import FLASH, ON_GPU, backend_of
from tests.worker.test_host_pages import CUTS, NUMBERS, ON_HOST, SLOTS, ZONES
from tests.worker.test_policies import HEADS, HYBRID, KV_HEADS, SCALE, Document

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DIM = 64
SHAPE = LayerShape(HEADS, KV_HEADS, DIM, DIM, latent=False)


def hosted(frames: int, slots: int = SLOTS) -> HostPages:
    """A layer with so many frames beside its slots; frames that nothing was written to are NaN."""
    layer = SHAPE.pages(frames + slots, dtype=torch.bfloat16, device=ON_GPU, bounds=False)
    layer.keys.fill_(float("nan"))
    layer.values.fill_(float("nan"))
    room = HostSplit(slots=slots, frames=frames, pages=NUMBERS)
    [found] = put_on_host([layer], [SHAPE], {0}, room)
    assert isinstance(found, HostPages)
    return found


def test_host_memory_is_pinned() -> None:
    """Else a copy would be staged, and waited for."""
    layer = hosted(8)
    assert layer.host_keys.is_pinned()
    assert layer.host_values.is_pinned()


@pytest.mark.parametrize("kind", [*FLASH, Kind.TILED])
@pytest.mark.parametrize("slots", [SLOTS, 64])
def test_each_backend_equals_the_definition(kind: Kind, slots: int) -> None:
    """Chunk by chunk, with frames given up behind the window; nothing is waited for between."""
    backend = HostBackend(backend_of(kind, DIM), slots)
    document = Document(2200, dim=DIM)
    document.round_to(torch.bfloat16)
    expected = document.reference(HYBRID, ZONES).out
    layer = hosted(len(document.table) + 3, slots)
    order = np.random.default_rng(1).permutation(NUMBERS).astype(np.int32)
    view = View(ModelPolicy("test", (ON_HOST,)), ZONES)
    parts = []
    for start, end in pairwise([0, *CUTS, 2200]):
        table = document.table[: -(-end // PAGE_TOKENS)].copy()
        gone = list(retention(ON_HOST, None, PAGE_TOKENS).droppable(start // PAGE_TOKENS))
        layer.keys[table[gone]] = layer.values[table[gone]] = float("nan")
        table[gone] = HOLE
        lengths = np.array([end - start])
        rows = AttentionRows(np.array([start]), lengths, [table], [order[: len(table)]])
        query, keys, values = (
            x[start:end].to(ON_GPU, torch.bfloat16)
            for x in (document.query, document.keys, document.values)
        )
        layer.write(rows.slots(ON_GPU), keys.transpose(0, 1), values.transpose(0, 1))
        step = StepAttention([backend], [rows], [view], ON_GPU)
        parts.append(step.attend(0, query, layer, scale=SCALE, window=None).out)
    actual = torch.cat(parts).float().cpu()
    # Rounding may turn a choice between pages that promise the same: few rows, not many.
    near = torch.isclose(actual, expected, atol=3e-2, rtol=3e-2)
    assert near.float().mean() > 0.98


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_whole_pages_are_seen_whole(dtype: torch.dtype) -> None:
    """By torch's flash kernel, and by plain products where numbers are too wide for it."""
    query = torch.randn(50, HEADS, DIM, device=ON_GPU).to(dtype)
    keys, values = torch.randn(2, 3, KV_HEADS, PAGE_TOKENS, DIM, device=ON_GPU).to(dtype)
    found = attend_whole(query, keys, values, scale=SCALE)
    group = HEADS // KV_HEADS
    flat, held = (
        x.float().transpose(0, 1).flatten(1, 2).repeat_interleave(group, 0) for x in (keys, values)
    )
    scores = torch.einsum("qhd,hkd->qhk", query.float(), flat) * SCALE
    expected = torch.einsum("qhk,hkd->qhd", scores.softmax(-1), held)
    torch.testing.assert_close(found.out, expected, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(found.lse, scores.logsumexp(-1), atol=2e-2, rtol=2e-3)


def test_the_start_checks_what_it_serves() -> None:
    """As a worker does, with slots for the one page that is chosen."""
    policy_check(backend_of(Kind.TILED, DIM), hosted(8, 1), HEADS)


def test_a_tier_reads_what_is_still_on_its_way_to_the_host() -> None:
    """The copy to the host is queued; who reads the page for a file waits for it."""
    layer = hosted(8)
    keys, values = torch.randn(2, KV_HEADS, PAGE_TOKENS, DIM, device=ON_GPU).to(torch.bfloat16)
    table, number = np.array([2], np.int32), np.array([7], np.int32)
    rows = AttentionRows(np.array([0]), np.array([PAGE_TOKENS]), [table], [number])
    tensors = PageTensors([layer], (1, 0))
    frames = np.zeros(1, np.int32)
    torch.cuda._sleep(100_000_000)  # type: ignore[no-untyped-call]
    layer.write(rows.slots(ON_GPU), keys, values)
    data = tensors.read(1, Lying(7, frames))
    tensors.write(1, Lying(9, frames), data)
    torch.cuda.synchronize()
    assert torch.equal(layer.host_keys[9], keys.cpu())
    assert torch.equal(layer.host_values[9], values.cpu())
