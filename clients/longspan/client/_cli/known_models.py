"""Decoders that people ask about before they download one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class KnownModel:
    """Sizes of a model as its authors publish them.

    Attributes:
        config: what its config.json says of the KV cache.
    """

    name: str
    parameters: int
    config: Mapping[str, Any]


def known_models() -> tuple[KnownModel, ...]:
    """From small to large."""
    return (
        _model("DeepSeek-R1-Distill-Qwen-1.5B", 1_777_088_000, 28, 1536, 12, 2),
        _model("DeepSeek-R1-Distill-Qwen-7B", 7_615_616_512, 28, 3584, 28, 4),
        _model("Llama-3.1-8B", 8_030_261_248, 32, 4096, 32, 8),
        _model("DeepSeek-R1-Distill-Qwen-14B", 14_770_033_664, 48, 5120, 40, 8),
        _model("DeepSeek-R1-Distill-Qwen-32B", 32_763_876_352, 64, 5120, 40, 8),
    )


def _model(
    name: str, parameters: int, layers: int, hidden: int, heads: int, kv_heads: int
) -> KnownModel:
    config = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 131_072,
    }
    return KnownModel(name, parameters, config)
