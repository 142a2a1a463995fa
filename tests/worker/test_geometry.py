"""Sizes of published models, and what fits into a memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.worker.attention.policy import PRESETS
from longspan.worker.models.geometry import (
    PAGE_TOKENS,
    ContextFit,
    Geometry,
    geometry,
    largest_contexts,
)
from longspan.worker.models.published import PUBLISHED, PublishedDecoder
from longspan.worker.models.weights import find_shards, read_headers, weight_bytes
from tests.worker.decoders import ARCHITECTURES, tiny_decoder

QWEN_1_5B, QWEN_7B, DEEPSEEK_V3 = PUBLISHED
GIB = 1 << 30


@pytest.mark.parametrize(
    ("decoder", "bytes_per_token", "context_tokens"),
    [(QWEN_1_5B, 28_672, 131_072), (QWEN_7B, 57_344, 131_072), (DEEPSEEK_V3, 70_272, 163_840)],
)
def test_published_models_have_their_published_sizes(
    decoder: PublishedDecoder, bytes_per_token: int, context_tokens: int
) -> None:
    """R1-Distill-Qwen-1.5B and 7B (grouped queries) and DeepSeek-V3 (latents), in bfloat16."""
    assert decoder.geometry.kv_bytes(2) == bytes_per_token
    assert decoder.geometry.context_tokens == context_tokens


@pytest.mark.parametrize(
    ("decoder", "vocabulary", "intermediate"),
    [(QWEN_1_5B, 151_936, 8960), (QWEN_7B, 152_064, 18_944)],
)
def test_published_parameters_are_those_of_the_architecture(
    decoder: PublishedDecoder, vocabulary: int, intermediate: int
) -> None:
    """transformers' own Qwen2 of the published sizes has as many parameters as the table says."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        **decoder.config,
        intermediate_size=intermediate,
        tie_word_embeddings=False,
        vocab_size=vocabulary,
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == decoder.parameters


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_formula_counts_what_transformers_caches(tmp_path: Path, architecture: str) -> None:
    """KV bytes per token equal the tensors that the model hands to its cache."""
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    tiny_decoder(architecture, tmp_path, context_tokens=512)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    cache: Any = DynamicCache()
    with torch.no_grad():
        model(torch.arange(10, 20)[None], past_key_values=cache)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert geometry(model.config.to_dict()).kv_bytes(4) * 10 == kept


def test_the_text_part_of_a_wrapper_counts() -> None:
    """A model that also sees has its sizes under text_config."""
    assert geometry({"text_config": QWEN_7B.config, "vision_config": {}}) == QWEN_7B.geometry


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        (None, 32_768),
        ({"rope_type": "default"}, 32_768),
        ({"rope_type": "linear", "factor": 4.0}, 32_768),
        ({"rope_type": "llama3", "factor": 8.0}, 32_768),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}, 131_072),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}, 32_768),
        ({"full_attention": {"rope_type": "yarn", "factor": 2.0}}, 65_536),
    ],
)
def test_rotary_scaling_may_lengthen_the_context(
    rope: dict[str, Any] | None, expected: int
) -> None:
    """Only scalings whose max_position_embeddings is that of pretraining multiply it."""
    changes = {"max_position_embeddings": 32_768, "rope_parameters": rope}
    assert geometry({**QWEN_7B.config, **changes}).context_tokens == expected


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_attention_heads", "hidden_size"])
@pytest.mark.parametrize("value", [None, 0, "many"])
def test_a_size_that_is_no_number_is_named(key: str, value: object) -> None:
    """The error names the key."""
    with pytest.raises(ValueError, match=f"no usable {key}"):
        geometry({**QWEN_7B.config, key: value})


def test_the_longest_context_ends_with_the_memory_or_with_the_positions() -> None:
    """1 GiB holds 18,724 tokens of 57,344 bytes, which is 73 pages; 100 GiB hold every position."""
    small, large = (
        largest_contexts(
            QWEN_7B.geometry, element_bytes=2, free_bytes=n * GIB, host_bytes=n * 10 * GIB
        )
        for n in (1, 100)
    )
    assert small == (
        ContextFit("full", 73 * PAGE_TOKENS, whole=False),
        ContextFit("window", 131_072, whole=True),
        ContextFit("hybrid", 73 * PAGE_TOKENS, whole=False),
        ContextFit("hierarchical", 73 * PAGE_TOKENS, whole=False),
        ContextFit("hybrid-exact", 73 * PAGE_TOKENS, whole=False),
        ContextFit("hybrid-4bit", 66 * PAGE_TOKENS, whole=False),
        ContextFit("hybrid-host", 171 * PAGE_TOKENS, whole=False),
        ContextFit("summary", 131_072, whole=True),
        ContextFit("lean", 438 * PAGE_TOKENS, whole=False),
    )
    assert large == tuple(ContextFit(name, 131_072, whole=True) for name in PRESETS)


@given(
    st.builds(
        Geometry,
        st.integers(1, 99),
        st.integers(1, 16),
        st.integers(1, 9999),
        st.integers(1, 1 << 20),
        st.integers(1, 72).map(lambda eights: 8 * eights),
    ),
    st.sampled_from([1, 2, 4]),
    st.integers(-GIB, 1 << 40),
)
def test_what_fits_fits_and_one_page_more_does_not(
    model: Geometry, element_bytes: int, free_bytes: int
) -> None:
    """The longest context takes no more memory than there is, and wastes less than a page."""
    page = model.kv_bytes(element_bytes) * PAGE_TOKENS
    choosing = model.layers - -(-model.layers // 4)
    copies = (
        choosing * model.kv_heads * (PAGE_TOKENS * (model.key_dim // 2 + 2) + 4 * model.key_dim)
    )
    for fit in largest_contexts(model, element_bytes=element_bytes, free_bytes=free_bytes):
        if fit.policy in ("window", "summary", "lean", "hybrid-host"):
            continue
        pages = -(-fit.tokens // PAGE_TOKENS)
        taken = page + (copies if fit.policy == "hybrid-4bit" else 0)
        assert pages * taken <= max(free_bytes, 0)
        assert fit.whole == (fit.tokens == model.context_tokens)
        assert fit.whole or (pages + 1) * taken > free_bytes


def test_a_window_is_as_long_as_the_positions_where_what_it_holds_fits() -> None:
    """Seven pages: the first, four of the window, the query's own, and one that is being read."""
    model = Geometry(layers=4, kv_heads=2, kv_floats=64, context_tokens=1 << 20, key_dim=16)
    page = model.kv_bytes(2) * PAGE_TOKENS
    for pages, tokens in ((7, 1 << 20), (6, 6 * PAGE_TOKENS)):
        fits = largest_contexts(model, element_bytes=2, free_bytes=pages * page)
        assert {fit.policy: fit.tokens for fit in fits}["window"] == tokens


def test_lean_saves_four_fifths() -> None:
    """A quarter of the layers in 8 bits, the rest behind a window: of a 7B model at 128k tokens."""
    model = replace(QWEN_7B.geometry, context_tokens=1 << 30)
    full = model.kv_bytes(2) * 131_072
    for free_bytes, policy in ((full, "full"), (full // 5, "lean")):
        fits = largest_contexts(model, element_bytes=2, free_bytes=free_bytes)
        assert {fit.policy: fit.tokens for fit in fits}[policy] >= 131_072


@pytest.mark.parametrize("architecture", ["qwen2", "gpt_oss"])
def test_weight_bytes_come_from_the_headers(tmp_path: Path, architecture: str) -> None:
    """Shards and one file agree with the parameters, in any size of number."""
    whole = tiny_decoder(architecture, tmp_path / "whole")
    parts = tiny_decoder(architecture, tmp_path / "parts", shard_bytes="100KB")
    index = json.loads((parts / "model.safetensors.index.json").read_text())
    for folder in (whole, parts):
        tensors = read_headers(find_shards(folder))
        assert weight_bytes(tensors, 4) == index["metadata"]["total_size"]
        assert weight_bytes(tensors, 2) == index["metadata"]["total_size"] // 2
