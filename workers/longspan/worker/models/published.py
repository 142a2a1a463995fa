"""Published decoders that `longspan doctor` measures a machine by, before any download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longspan.worker.models.geometry import Geometry, geometry


@dataclass(frozen=True, slots=True)
class PublishedDecoder:
    """A decoder on the Hugging Face hub.

    Attributes:
        name: its id on the hub.
        parameters: as its safetensors hold them, without heads for several tokens at once.
        config: the keys of its config.json that decide the KV cache's size.
    """

    name: str
    parameters: int
    config: Mapping[str, Any]

    @property
    def geometry(self) -> Geometry:
        """What one token of it costs."""
        return geometry(self.config)


PUBLISHED = (
    PublishedDecoder(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        1_777_088_000,
        {
            "hidden_size": 1536,
            "max_position_embeddings": 131_072,
            "num_attention_heads": 12,
            "num_hidden_layers": 28,
            "num_key_value_heads": 2,
        },
    ),
    PublishedDecoder(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        7_615_616_512,
        {
            "hidden_size": 3584,
            "max_position_embeddings": 131_072,
            "num_attention_heads": 28,
            "num_hidden_layers": 28,
            "num_key_value_heads": 4,
        },
    ),
    PublishedDecoder(
        "deepseek-ai/DeepSeek-V3",
        671_026_419_200,
        {
            "kv_lora_rank": 512,
            "max_position_embeddings": 163_840,
            "num_hidden_layers": 61,
            "qk_rope_head_dim": 64,
            "rope_scaling": {
                "factor": 40,
                "original_max_position_embeddings": 4096,
                "type": "yarn",
            },
        },
    ),
)
