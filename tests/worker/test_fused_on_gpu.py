"""Fused decoders on a real GPU, through CUDA graphs; skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.select import select_backend
from longspan.worker.generation.graphs import capture_graphs
from longspan.worker.generation.runner import Runner
from longspan.worker.generation.serving import quicken
from longspan.worker.models import seam
from longspan.worker.models.fused_decoder import FusedDecoder
from longspan.worker.models.probe import probe
from tests.worker.decoders import tiny_decoder
from tests.worker.packed_steps import Walk, worst
from tests.worker.test_fused_decoder import VOCABULARY, load

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ON_GPU = torch.device("cuda")
SCRATCH_PAGE = 16
LENGTHS = (600, 290)
ROUNDING = 0.1
"""Largest difference of logits, as a part of the largest: as at a worker's start."""


@torch.inference_mode()
def walks_on_gpu(eager: Any) -> list[Walk]:
    """Random sequences with the logits that transformers computes there."""
    rng = np.random.default_rng(0)
    pages = rng.permutation(SCRATCH_PAGE).astype(np.int32)
    walks, used = [], 0
    for number, length in enumerate(LENGTHS):
        count = -(-length // PAGE_TOKENS)
        tokens = rng.integers(3, VOCABULARY, length).astype(np.uint32)
        ids = torch.from_numpy(tokens.astype(np.int64)).to(ON_GPU)[None]
        reference = eager(input_ids=ids, use_cache=False).logits[0].float()
        walks.append(Walk(number, tokens, pages[used : used + count], reference))
        used += count
    return walks


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "qwen3"])
def test_steps_and_graphs_equal_transformers(
    architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prefill and captured decode in bfloat16, compiled, over weights that lie there once."""
    wide: dict[str, Any] = {"head_dim": 64, "hidden_size": 256, "intermediate_size": 512}
    folder = tiny_decoder(architecture, tmp_path, initializer_range=0.1, **wide)
    walks = walks_on_gpu(load(folder, "eager").to(ON_GPU, torch.bfloat16))
    model = load(folder, seam.ATTENTION).to(ON_GPU, torch.bfloat16)
    before = torch.cuda.memory_allocated()
    fused = quicken(model, torch.bfloat16, ON_GPU, compiled=False)
    assert torch.cuda.memory_allocated() - before < 1 << 20
    assert isinstance(fused, FusedDecoder)
    assert "without compiled kernels" not in capsys.readouterr().err
    layers = [
        shape.pages(SCRATCH_PAGE + 1, dtype=torch.bfloat16, device=ON_GPU)
        for shape in probe(model, ON_GPU)
    ]
    runner = Runner(fused, layers, select_backend(ON_GPU, torch.bfloat16, 64))
    runner.graphs = capture_graphs(runner, (1, 2, 4), 1024, scratch_page=SCRATCH_PAGE)
    assert (runner.graphs is not None) == runner.paged_kernel
    largest = max(float(walk.reference.abs().max()) for walk in walks)
    assert worst(runner, walks) < ROUNDING * largest
