"""Decoders as transformers' own classes, loaded with their attention replaced."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from longspan.worker.failures import StartFailure
from longspan.worker.models.decoder_files import find_decoder
from longspan.worker.models.loading import check_memory, load_decoder
from longspan.worker.models.seam import ATTENTION
from longspan.worker.models.weights import read_headers, weight_bytes
from tests.worker.decoders import ARCHITECTURES, TINY, save_tokenizer, tiny_decoder
from tests.worker.test_decoder_files import change_json, set_config

GIB = 1 << 30
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def load(folder: Path, dtype: str = "float32") -> Any:
    """The decoder on the CPU."""
    return load_decoder(find_decoder(folder), device="cpu", dtype=dtype)


def eager_logits(model: Any) -> torch.Tensor:
    """Logits [40, vocabulary] of fixed tokens, by transformers' own attention."""
    model.set_attn_implementation("eager")
    tokens = torch.arange(10, 50)[None]
    with torch.no_grad():
        logits: torch.Tensor = model(tokens, use_cache=False).logits[0]
    return logits


def unpack_mxfp4(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Floats of OCP Microscaling FP4 (E2M1, low nibble first) with scales of E8M0."""
    positive = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    table = torch.cat((positive, -positive))
    nibbles = torch.stack((blocks & 15, blocks >> 4), -1).flatten(-2)
    return table[nibbles.long()] * torch.exp2(scales[..., None].float() - 127)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_loads_with_its_weights_unchanged(
    tmp_path: Path, architecture: str
) -> None:
    """The loaded model is transformers' own: eager, it computes what from_pretrained computes."""
    from transformers import AutoModelForCausalLM

    tiny_decoder(architecture, tmp_path, context_tokens=512)
    model = load(tmp_path)
    assert model.config._attn_implementation == ATTENTION
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    torch.testing.assert_close(eager_logits(model), eager_logits(expected), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_loaded_as_the_numbers_that_were_asked_for(tmp_path: Path, dtype: str) -> None:
    """Every parameter has the chosen dtype."""
    model = load(tiny_decoder("qwen2", tmp_path), dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}


def test_a_sharded_model_equals_the_whole_one(tmp_path: Path) -> None:
    """Weights may lie in several files behind an index."""
    whole = tiny_decoder("llama", tmp_path / "whole")
    parts = tiny_decoder("llama", tmp_path / "parts", shard_bytes="100KB")
    assert len(list(parts.glob("*.safetensors"))) > 2
    assert torch.equal(eager_logits(load(whole)), eager_logits(load(parts)))


@pytest.mark.parametrize(
    ("kind", "text", "vision", "tied"),
    [
        ("gemma3", "gemma3_text", "siglip_vision_model", True),
        ("mistral3", "mistral", "pixtral", True),
        ("mistral3", "mistral", "pixtral", False),
    ],
)
def test_of_a_model_that_also_sees_the_text_part_is_loaded(
    tmp_path: Path, kind: str, text: str, vision: str, tied: bool
) -> None:
    """A wrapper of text and vision gives the decoder inside it, with the decoder's weights."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    sizes = {**TINY, "max_position_embeddings": 512, "sliding_window": 24, "model_type": text}
    config = AutoConfig.for_model(
        kind,
        text_config=sizes,
        vision_config={**VISION, "model_type": vision},
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wrapper = AutoModelForImageTextToText.from_config(config)  # type: ignore[no-untyped-call]
    wrapper.eval().save_pretrained(tmp_path)
    save_tokenizer(tmp_path, vocabulary=TINY["vocab_size"])
    if not tied:  # as published: weights of its own, and no word of it in the configuration
        change_json(tmp_path / "config.json", tie_word_embeddings=None)
    model = load(tmp_path)
    assert model.config.model_type == text
    assert torch.equal(eager_logits(model), eager_logits(wrapper))


def test_experts_of_four_bits_are_unpacked(tmp_path: Path) -> None:
    """GPT-OSS is published in MXFP4: two numbers a byte, one power of two for 32 of them."""
    path = tiny_decoder("gpt_oss", tmp_path) / "model.safetensors"
    weights = load_file(path)
    unpacked = {}
    for whole in [key for key in weights if key.endswith(("experts.down_proj", "gate_up_proj"))]:
        shape = weights.pop(whole).mT.shape
        blocks = torch.randint(0, 256, (*shape[:-1], shape[-1] // 32, 16), dtype=torch.uint8)
        scales = torch.randint(120, 124, blocks.shape[:-1], dtype=torch.uint8)
        weights |= {f"{whole}_blocks": blocks, f"{whole}_scales": scales}
        unpacked[whole] = unpack_mxfp4(blocks, scales).reshape(shape).mT
    save_file(weights, path, {"format": "pt"})
    set_config(tmp_path, quantization_config={"quant_method": "mxfp4"})
    model = load(tmp_path, "bfloat16")
    assert len(unpacked) == 6
    for name, expected in unpacked.items():
        assert torch.equal(model.get_parameter(name).float(), expected)
    counted = weight_bytes(read_headers((path,)), 2)
    held = sum(parameter.nbytes for parameter in model.parameters())
    assert held <= counted <= 1.05 * held


def test_code_beside_a_known_model_is_left_alone(tmp_path: Path) -> None:
    """DeepSeek-V3 publishes code for a model that transformers has: transformers' own is used."""
    tiny_decoder("deepseek_v3", tmp_path)
    code = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    set_config(tmp_path, auto_map=code)
    (tmp_path / "evil.py").write_text("raise SystemExit('this code was run')")
    assert type(load(tmp_path)).__module__.startswith("transformers.models.deepseek_v3.")


def test_absent_weights_are_refused(tmp_path: Path) -> None:
    """A layer without weights is not filled with random ones."""
    tiny_decoder("qwen2", tmp_path)
    set_config(tmp_path, num_hidden_layers=4, layer_types=["full_attention"] * 4)
    with pytest.raises(StartFailure, match=r"lacks weights, model\.layers\.3\."):
        load(tmp_path)


def test_weights_of_another_size_are_refused_in_one_line(tmp_path: Path) -> None:
    """A weight that does not fit the configuration stops the start."""
    path = tiny_decoder("qwen2", tmp_path) / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(StartFailure, match="holds no loadable decoder") as failure:
        load(tmp_path)
    assert "\n" not in str(failure.value)


def test_weights_larger_than_the_memory_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """The message says how much is needed and how much is there."""
    files = find_decoder(tiny_decoder("llama", tmp_path))
    elements = 1 << 42
    tensor = {"dtype": "BF16", "shape": [elements], "data_offsets": [0, 2 * elements]}
    header = json.dumps({"model.norm.weight": tensor}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with path.open("r+b") as file:
        file.truncate(8 + len(header) + 2 * elements)
    with pytest.raises(StartFailure, match=r"need 16384\.00 GiB, cpu has \d+\.\d\d GiB free"):
        load_decoder(files, device="cpu", dtype="float32")


def test_unknown_free_memory_refuses_nothing(tmp_path: Path) -> None:
    """Where the system does not say what is free, loading is tried."""
    files = replace(find_decoder(tiny_decoder("llama", tmp_path)), name="tiny")
    cpu = torch.device("cpu")
    check_memory(files, cpu, needed=GIB, free=None)
    check_memory(files, cpu, needed=GIB, free=GIB)
    with pytest.raises(StartFailure, match=r"weights of tiny need 1\.00 GiB, cpu has 0\.50 GiB"):
        check_memory(files, cpu, needed=GIB, free=GIB // 2)
