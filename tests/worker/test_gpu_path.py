"""The GPU's way through a whole decoder, over emulated kernels, against eager attention."""

from __future__ import annotations

from pathlib import Path

import pytest

from longspan.worker.attention.base import Backend
from longspan.worker.attention.flash2 import Flash2
from longspan.worker.attention.flash3 import Flash3
from longspan.worker.attention.folded import FoldedBackend
from longspan.worker.attention.tiled import TiledBackend
from longspan.worker.models import seam
from tests.worker import flash_emulator as emulator
from tests.worker.decoders import tiny_decoder
from tests.worker.packed_steps import DECODED, CountedGraphs, runner_of, walks_of, worst
from tests.worker.test_seam import LENGTHS, VOCABULARY, load

FLASH2 = FoldedBackend(Flash2(emulator.flash2_varlen, emulator.flash2_with_kvcache))
FLASH3 = FoldedBackend(Flash3(emulator.flash3_with_kvcache))
SCRATCH_PAGE = 16


@pytest.mark.parametrize(
    ("architecture", "backend"),
    [
        ("qwen2", FLASH2),
        ("gemma3_text", FLASH3),
        ("gpt_oss", FLASH2),
        ("mistral", FLASH3),
        ("deepseek_v3", TiledBackend()),
    ],
)
def test_gpu_backends_under_a_decoder(architecture: str, backend: Backend, tmp_path: Path) -> None:
    """Windows, learned sinks and latents reach the kernels as they must."""
    model = load(tiny_decoder(architecture, tmp_path), "eager")
    walks = walks_of(model, LENGTHS, VOCABULARY)
    model.set_attn_implementation(seam.ATTENTION)
    assert worst(runner_of(model, backend=backend), walks) < 1e-4


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gpt_oss"])
def test_decode_through_graph_buffers(architecture: str, tmp_path: Path) -> None:
    """Decode steps, padded to buckets and read from static buffers, give the same logits."""
    model = load(tiny_decoder(architecture, tmp_path), "eager")
    walks = walks_of(model, LENGTHS, VOCABULARY)
    model.set_attn_implementation(seam.ATTENTION)
    runner = runner_of(model, pages=SCRATCH_PAGE + 1, backend=FLASH2)
    graphs = CountedGraphs(runner, scratch_page=SCRATCH_PAGE)
    assert worst(runner, walks) < 1e-4
    assert graphs.taken.count(2) == DECODED
