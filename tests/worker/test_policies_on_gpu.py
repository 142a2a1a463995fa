"""Attention policies over real kernels, against the definition; skipped where there is no GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from longspan.worker.attention.centroids import make_centroids
from longspan.worker.attention.decode_attention import DecodeAttention
from longspan.worker.attention.folded import FoldedBackend
from longspan.worker.attention.four_bit_keys import make_four_bit_keys
from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.linear.page_sums import PageSums
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.select import Kind
from longspan.worker.attention.step_attention import StepAttention
from longspan.worker.attention.zones import Zones
from longspan.worker.generation.decode_graph import DecodeGraphs, DecodeInputs, decode_inputs
from tests.worker.test_attention_on_gpu import FLASH, ON_GPU, backend_of
from tests.worker.test_policies import HEADS, KV_HEADS, POLICIES, SCALE, Document

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ZONES = Zones(task_start=1500, answer_start=1599)


@pytest.mark.parametrize("kind", [*FLASH, Kind.TILED])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("chunk", [(0, 1600), (1024, 1600), (1599, 1600)], ids=str)
def test_each_backend_equals_the_definition(
    kind: Kind, policy: str, chunk: tuple[int, int]
) -> None:
    """A whole sequence, its end, and one token of its answer, in half precision."""
    backend = backend_of(kind, 64)
    document = Document(1600, dim=64)
    document.round_to(torch.bfloat16)
    document.keep_sums(document.maps)
    document.write(0, 1600)
    expected = document.reference(POLICIES[policy], ZONES).out
    on_host = document.layer
    assert on_host.bounds is not None
    assert on_host.page_sums is not None
    keys, values, bounds = (
        x.to(ON_GPU, torch.bfloat16) for x in (on_host.keys, on_host.values, on_host.bounds)
    )
    centroids = make_centroids(keys, values)
    centroids.write(torch.arange(len(keys), device=ON_GPU), keys, values)
    four_bit = make_four_bit_keys(keys.shape[1], len(keys), PAGE_TOKENS, keys.shape[3], ON_GPU)
    four_bit.write(torch.arange(len(keys), device=ON_GPU), keys)
    maps = document.maps.part(range(HEADS), range(KV_HEADS), ON_GPU)
    sums = PageSums(maps, on_host.page_sums.sums.to(ON_GPU), SCALE)
    layer = LayerPages(keys, values, bounds, centroids=centroids, page_sums=sums, four_bit=four_bit)
    start, end = chunk
    view = View(ModelPolicy(policy, (POLICIES[policy],)), ZONES)
    step = StepAttention([backend], [document.rows(start, end)], [view], ON_GPU)
    query = document.query[start:end].to(ON_GPU, torch.bfloat16)
    actual = step.attend(0, query, layer, scale=SCALE, window=None).out
    # Rounding may turn a choice between pages that promise the same: few rows, not many.
    near = torch.isclose(actual.float().cpu(), expected[start:end], atol=3e-2, rtol=3e-2)
    assert near.float().mean() > 0.98


@pytest.mark.parametrize("kind", FLASH)
@pytest.mark.parametrize("policy", ["window", "hybrid"])
def test_decode_from_a_graph_equals_the_definition(kind: Kind, policy: str) -> None:
    """A captured step, replayed for other rows than it was captured with."""
    backend = backend_of(kind, 64)
    if not isinstance(backend, FoldedBackend):
        pytest.skip(f"{kind} has no block tables, so no graphs")
    document = Document(1800, dim=64)
    document.round_to(torch.bfloat16)
    document.write(0, 1800)
    expected = document.reference(POLICIES[policy], Zones(0, 0)).out
    assert document.layer.bounds is not None
    keys, values, bounds = (
        x.to(ON_GPU, torch.bfloat16)
        for x in (document.layer.keys, document.layer.values, document.layer.bounds)
    )
    layer = LayerPages(keys, values, bounds)
    query = document.query.to(ON_GPU, torch.bfloat16)
    seen = ModelPolicy(policy, (POLICIES[policy],))

    def forward(inputs: DecodeInputs, policy: ModelPolicy) -> torch.Tensor:
        attention = DecodeAttention(backend, policy, inputs.block_tables, inputs.keys)
        rows = query[inputs.positions]
        return attention.attend(0, rows, layer, scale=SCALE, window=None).out

    graphs = DecodeGraphs(forward, (2, 4), ON_GPU, blocks=10, scratch_page=9)
    with torch.inference_mode():
        for positions in ([1300, 1799], [1791, 1792, 1400], [1500]):
            rows = [document.rows(at, at + 1) for at in positions]
            step = AttentionRows(
                np.array(positions, np.int64),
                np.ones(len(positions), np.int64),
                [row.block_tables[0] for row in rows],
            )
            out = graphs.run(decode_inputs(np.zeros(len(positions), np.uint32), step), seen)
            near = torch.isclose(out.float().cpu(), expected[positions], atol=3e-2, rtol=3e-2)
            assert near.float().mean() > 0.95
