"""Unmodified decoders over paged attention, against transformers' own eager attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from longspan.worker.failures import StartFailure
from longspan.worker.models import seam
from longspan.worker.models.probe import probe
from tests.worker.decoders import ARCHITECTURES, TINY, tiny_decoder
from tests.worker.packed_steps import CPU, Forgetful, runner_of, walks_of, worst

VOCABULARY = 384
LENGTHS = (600, 290)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def eager(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny random decoder with transformers' eager attention."""
    assert TINY["vocab_size"] == VOCABULARY
    folder = tiny_decoder(request.param, tmp_path_factory.mktemp(request.param))
    return load(folder, "eager")


def load(folder: Path, attention: str) -> Any:
    """The folder's model in float32."""
    seam.register()
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=attention, dtype=torch.float32
    )
    return model.requires_grad_(False)


def test_chunked_packed_interleaved_steps_equal_eager_attention(eager: Any) -> None:
    """Prefill in chunks and decode of two sequences in packed rows give the one-shot logits."""
    walks = walks_of(eager, LENGTHS, VOCABULARY)
    eager.set_attn_implementation(seam.ATTENTION)
    try:
        assert worst(runner_of(eager), walks) < 1e-4
    finally:
        eager.set_attn_implementation("eager")


def test_a_mutant_that_forgets_differs(eager: Any) -> None:
    """The comparison has teeth: seeing only eight keys moves the logits by more than one."""
    walks = walks_of(eager, LENGTHS, VOCABULARY)
    eager.set_attn_implementation(seam.ATTENTION)
    try:
        assert worst(runner_of(eager, backend=Forgetful(8)), walks) > 1
    finally:
        eager.set_attn_implementation("eager")


def test_latents_are_what_is_cached(tmp_path: Path) -> None:
    """MLA caches rank + rotary numbers a token and layer, not the expanded heads."""
    model = load(tiny_decoder("deepseek_v3", tmp_path), seam.ATTENTION)
    assert [shape.numbers for shape in probe(model, CPU)] == [24 + 8] * 3


def test_a_model_whose_attention_stays_its_own_is_refused(tmp_path: Path) -> None:
    """A cache that nobody writes to is noticed before a page is made."""
    model = load(tiny_decoder("llama", tmp_path), "eager")
    with pytest.raises(StartFailure, match="cannot be replaced"):
        probe(model, CPU)
