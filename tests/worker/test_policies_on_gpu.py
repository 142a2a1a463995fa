"""Attention policies over real kernels, against the definition; skipped where there is no GPU."""

from __future__ import annotations

import pytest
import torch

from longspan.worker.attention.centroids import make_centroids
from longspan.worker.attention.four_bit_keys import make_four_bit_keys
from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.select import Kind
from longspan.worker.attention.step_attention import StepAttention
from longspan.worker.attention.zones import Zones
from tests.worker.test_attention_on_gpu import FLASH, ON_GPU, backend_of
from tests.worker.test_policies import POLICIES, SCALE, Document

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
    document.write(0, 1600)
    expected = document.reference(POLICIES[policy], ZONES).out
    on_host = document.layer
    assert on_host.bounds is not None
    keys, values, bounds = (
        x.to(ON_GPU, torch.bfloat16) for x in (on_host.keys, on_host.values, on_host.bounds)
    )
    centroids = make_centroids(keys, values)
    centroids.write(torch.arange(len(keys), device=ON_GPU), keys, values)
    four_bit = make_four_bit_keys(keys.shape[1], len(keys), PAGE_TOKENS, keys.shape[3], ON_GPU)
    four_bit.write(torch.arange(len(keys), device=ON_GPU), keys)
    layer = LayerPages(keys, values, bounds, centroids=centroids, four_bit=four_bit)
    start, end = chunk
    view = View(ModelPolicy(policy, (POLICIES[policy],)), ZONES)
    step = StepAttention([backend], [document.rows(start, end)], [view], ON_GPU)
    query = document.query[start:end].to(ON_GPU, torch.bfloat16)
    actual = step.attend(0, query, layer, scale=SCALE, window=None).out
    # Rounding may turn a choice between pages that promise the same: few rows, not many.
    near = torch.isclose(actual.float().cpu(), expected[start:end], atol=3e-2, rtol=3e-2)
    assert near.float().mean() > 0.98
