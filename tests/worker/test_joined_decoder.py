"""Decoders over joined plain weights, as a GPU computes them, against transformers' own layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from longspan.worker.attention.base import Backend
from longspan.worker.attention.flash2 import Flash2
from longspan.worker.attention.flash3 import Flash3
from longspan.worker.attention.folded import FoldedBackend
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.models import seam
from longspan.worker.models.compiled_elementwise import LayerSizes, compiled
from longspan.worker.models.elementwise import Elementwise, HeadNorms, gate_by, place
from longspan.worker.models.fused_decoder import FusedDecoder
from longspan.worker.models.joined_weight import can_join, join_weights
from tests.worker import flash_emulator as emulator
from tests.worker.decoders import tiny_decoder
from tests.worker.packed_steps import CPU, DECODED, CountedGraphs, runner_of, walks_of, worst
from tests.worker.test_fused_decoder import KNOWN, VOCABULARY, load

FLASH2 = FoldedBackend(Flash2(emulator.flash2_varlen, emulator.flash2_with_kvcache))
FLASH3 = FoldedBackend(Flash3(emulator.flash3_with_kvcache))
LENGTHS = (600, 290)
SCRATCH_PAGE = 16
TIED: dict[str, dict[str, Any]] = {
    "qwen2": {"tie_word_embeddings": True},
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen3": {"attention_bias": True},
    "mistral": {},
}


@pytest.fixture(scope="module", params=KNOWN)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random decoder: tied embeddings, biases everywhere, norms of heads, a window."""
    settings = TIED[request.param]
    return tiny_decoder(request.param, tmp_path_factory.mktemp(request.param), **settings)


def fused_of(model: Any) -> FusedDecoder:
    """The decoder as on a GPU, its elementwise parts uncompiled."""
    assert can_join(model)
    return FusedDecoder(model, join_weights(model), direct=True)


@pytest.mark.parametrize("backend", [FLASH2, FLASH3], ids=["flash2", "flash3"])
def test_interleaved_steps_equal_eager_attention(folder: Path, backend: Backend) -> None:
    """Prefill in chunks and decode of two sequences in packed rows give the one-shot logits."""
    walks = walks_of(load(folder, "eager"), LENGTHS, VOCABULARY)
    model = load(folder, seam.ATTENTION)
    assert worst(runner_of(model, backend=backend, running=fused_of(model)), walks) < 1e-4


def test_decode_through_graph_buffers(folder: Path) -> None:
    """Decode steps, padded to buckets and read from static buffers, give the same logits."""
    walks = walks_of(load(folder, "eager"), LENGTHS, VOCABULARY)
    model = load(folder, seam.ATTENTION)
    runner = runner_of(model, pages=SCRATCH_PAGE + 1, backend=FLASH2, running=fused_of(model))
    graphs = CountedGraphs(runner, scratch_page=SCRATCH_PAGE)
    assert worst(runner, walks) < 1e-4
    assert graphs.taken.count(2) == DECODED


def test_a_missing_norm_shows(folder: Path) -> None:
    """The comparison has teeth: a norm that was changed before the model was fused."""
    walks = walks_of(load(folder, "eager"), (30,), VOCABULARY)
    model = load(folder, seam.ATTENTION)
    model.model.layers[1].post_attention_layernorm.weight.data.fill_(3.0)
    assert worst(runner_of(model, backend=FLASH2, running=fused_of(model)), walks) > 1


def test_weights_lie_in_memory_once(folder: Path) -> None:
    """Joined, the parameters of the model are parts of the tensors that are multiplied."""
    model = load(folder, seam.ATTENTION)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    products = join_weights(model)
    for layer, joined in zip(model.model.layers, products.layers, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        assert len({part.weight.untyped_storage().data_ptr() for part in parts}) == 1
        assert mlp.gate_proj.weight.untyped_storage().nbytes() == 2 * mlp.gate_proj.weight.nbytes
        # What is written into a layer's own weight is multiplied.
        down = torch.ones(1, mlp.gate_proj.in_features)
        mlp.up_proj.weight.data.fill_(1.0)
        made = joined.gate_up.product(down)[0, mlp.gate_proj.out_features :]
        bias = 0 if mlp.up_proj.bias is None else mlp.up_proj.bias
        torch.testing.assert_close(made, torch.full_like(made, mlp.gate_proj.in_features) + bias)
    for name, parameter in model.named_parameters():
        if "up_proj.weight" not in name:
            assert torch.equal(parameter, before[name])


def test_others_are_not_joined(tmp_path: Path) -> None:
    """A layer that is no plain linear one, or siblings of which one has a bias."""
    model = load(tiny_decoder("qwen2", tmp_path), seam.ATTENTION)
    assert can_join(model)
    model.model.layers[1].self_attn.k_proj.bias = None
    assert not can_join(model)


@pytest.mark.parametrize("norms", [None, HeadNorms(torch.ones(16), torch.ones(16), 1e-6)])
def test_no_number_of_tokens_compiles_anew(norms: HeadNorms | None) -> None:
    """Two compilations: of one row, and of several."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    plain = Elementwise(place, gate_by(torch.nn.functional.silu))
    sizes = LayerSizes(width=8 * 16, kv_heads=2, d=16, inner=96)
    made = compiled(
        plain, sizes, norms, device=CPU, dtype=torch.float32, compiler={"backend": counter}
    )
    assert made is not plain
    assert counter.frame_count == 4
    pools = [torch.zeros(2, 7, 2, PAGE_TOKENS, 16) for _ in range(2)]
    with torch.inference_mode():
        for rows in (1, 2, 3, 16, 300):
            qkv, cos, sin = (torch.randn(rows, *shape) for shape in ((8 * 16,), (1, 16), (1, 16)))
            slots = torch.randperm(7 * PAGE_TOKENS)[:rows]
            queries = [
                functions.place(qkv, cos, sin, pool[0], pool[1], slots, norms)
                for functions, pool in zip((plain, made), pools, strict=True)
            ]
            torch.testing.assert_close(*queries)
            torch.testing.assert_close(*pools)
            gate_up = torch.randn(rows, 192)
            torch.testing.assert_close(plain.gate(gate_up), made.gate(gate_up))
    assert counter.frame_count == 4


def test_what_cannot_be_compiled_stays_plain(capsys: pytest.CaptureFixture[str]) -> None:
    """A compiler that fails is told once, and the decoder runs without it."""

    def broken(*_: object) -> Any:
        raise OSError("no C compiler\nin the path")

    torch._dynamo.reset()
    plain = Elementwise(place, gate_by(torch.nn.functional.silu))
    sizes = LayerSizes(width=8 * 16, kv_heads=2, d=16, inner=96)
    made = compiled(
        plain, sizes, None, device=CPU, dtype=torch.float32, compiler={"backend": broken}
    )
    assert made is plain
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no C compiler" in said
