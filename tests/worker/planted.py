"""A decoder whose attention is known beforehand: one kv head looks everywhere, all others near."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.worker.decoders import TINY, tiny_decoder

LAYERS, HEADS, KV_HEADS, DIM = 3, 4, 2, 16
assert (TINY["num_hidden_layers"], TINY["num_attention_heads"]) == (LAYERS, HEADS)
assert (TINY["num_key_value_heads"], TINY["head_dim"]) == (KV_HEADS, DIM)
LAYER, KV_HEAD = 1, 1
NEAR = 6.0
"""Of every number of a near head's query and key: what is 20 tokens away has no weight left."""


def planted_decoder(folder: Path, *, context_tokens: int, chat_template: str | None) -> Path:
    """A Qwen2 whose scores depend on distances alone; returns ``folder``.

    Queries and keys are biases without weights. A rotated constant meets itself with a score
    that is largest at its own place; of zeros all scores are equal.
    """
    tiny_decoder("qwen2", folder, context_tokens=context_tokens, chat_template=chat_template)
    path = folder / "model.safetensors"
    weights = load_file(path)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}.self_attn"
        near = torch.ones(KV_HEADS, 1)
        if layer == LAYER:
            near[KV_HEAD] = 0.0
        for part, heads in (("q_proj", HEADS), ("k_proj", KV_HEADS)):
            weights[f"{name}.{part}.weight"].zero_()
            bias = (near * NEAR).repeat_interleave(heads // KV_HEADS, 0).expand(heads, DIM)
            weights[f"{name}.{part}.bias"] = bias.flatten().contiguous()
    save_file(weights, path, metadata={"format": "pt"})
    return folder
