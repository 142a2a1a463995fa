"""Fused decoders against transformers' own layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from longspan.worker.generation.plan import StepPlan
from longspan.worker.generation.serving import quicken
from longspan.worker.models import seam
from longspan.worker.models.few_rows import FewRows
from longspan.worker.models.fused_decoder import WINDOWS, FusedDecoder
from longspan.worker.models.packed_linear import can_pack, pack_linears, packed_products
from tests.worker.decoders import ARCHITECTURES, DIFFERENCES, tiny_decoder
from tests.worker.packed_steps import CPU, runner_of, walks_of, worst

VOCABULARY = 384
KNOWN = ("llama", "mistral", "qwen2", "qwen3")

pytestmark = pytest.mark.skipif(
    not can_pack(torch.float32), reason="this machine's torch cannot pack linear layers"
)


def load(folder: Path, attention: str) -> Any:
    """The folder's model, whose norms and biases differ from what they start with."""
    seam.register()
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=attention, dtype=torch.float32
    )
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                noise = torch.rand(parameter.shape, generator=random)
                parameter.copy_(noise + 0.5 if "norm" in name else noise - 0.5)
    return model.requires_grad_(False)


@pytest.fixture(scope="module", params=KNOWN)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random decoder."""
    biases: dict[str, Any] = {"attention_bias": True} if request.param in ("llama", "qwen3") else {}
    return tiny_decoder(request.param, tmp_path_factory.mktemp(request.param), **biases)


def test_interleaved_steps_equal_eager_attention(folder: Path) -> None:
    """Prefill in chunks and decode of two sequences in packed rows give the one-shot logits."""
    walks = walks_of(load(folder, "eager"), (600, 290), VOCABULARY)
    model = load(folder, seam.ATTENTION)
    fused = quicken(model, torch.float32, CPU, compiled=False)
    assert isinstance(fused, FusedDecoder)
    assert worst(runner_of(model, running=fused), walks) < 1e-4


@pytest.mark.parametrize("few", [FewRows(), FewRows(least=1), FewRows(1, plain_row=True)])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_steps_of_few_rows_equal_eager_attention(folder: Path, length: int, few: FewRows) -> None:
    """Again and again over the same memory, whose padding changes nothing."""
    walks = walks_of(load(folder, "eager"), (4 * length,), VOCABULARY)
    model = load(folder, seam.ATTENTION)
    assert pack_linears(model, few)
    products = packed_products(model)
    assert products is not None
    runner = runner_of(model, running=FusedDecoder(model, products))
    [walk] = walks
    while walk.left:
        logits = runner.run(StepPlan((walk.chunk(length),)))
        torch.testing.assert_close(
            logits[0], walk.reference[walk.position - 1], atol=1e-4, rtol=1e-4
        )


def test_a_missing_norm_shows(folder: Path) -> None:
    """The comparison has teeth: a norm that was changed after the model was fused."""
    walks = walks_of(load(folder, "eager"), (30,), VOCABULARY)
    model = load(folder, seam.ATTENTION)
    model.model.layers[1].post_attention_layernorm.weight.data.fill_(3.0)
    fused = quicken(model, torch.float32, CPU, compiled=False)
    assert worst(runner_of(model, running=fused), walks) > 1


def test_other_decoders_stay_as_they_are(tmp_path: Path) -> None:
    """What is not known is not guessed."""
    for architecture in sorted(set(ARCHITECTURES) - set(KNOWN)):
        model = load(tiny_decoder(architecture, tmp_path / architecture), seam.ATTENTION)
        assert quicken(model, torch.float32, CPU, compiled=False) is model


def test_every_known_decoder_is_tested() -> None:
    """The table of windows and the list above name the same decoders."""
    assert {name.removesuffix("ForCausalLM").lower() for name in WINDOWS} == set(KNOWN)
    assert set(KNOWN) <= set(DIFFERENCES)
