"""A Qwen2 folder as a GGUF file: the same weights, for llama.cpp.

    python -m benchmarks.peers.gguf_model FOLDER FILE DTYPE

Runs under the interpreter that has ``gguf``. Matrices are stored in the dtype asked for, norms
and biases in float32, as llama.cpp's own converter does. There is no tokenizer: prompts are ids.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf  # type: ignore[import-not-found,import-untyped,unused-ignore]

from benchmarks.peers.safetensors_file import read_float32

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE_LAYERS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor of transformers' Qwen2."""
    if name in OUTSIDE_LAYERS:
        return OUTSIDE_LAYERS[name]
    layer, _, inside = name.removeprefix("model.layers.").partition(".")
    module, _, kind = inside.rpartition(".")
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def write(folder: Path, path: Path, dtype: str) -> None:
    """Write ``path``; ``dtype`` is ``float32`` or ``bfloat16``."""
    stored = gguf.GGMLQuantizationType[{"float32": "F32", "bfloat16": "BF16"}[dtype]]
    writer = gguf.GGUFWriter(str(path), "qwen2")
    _describe(writer, json.loads((folder / "config.json").read_bytes()))
    for name, values in read_float32(folder / "model.safetensors").items():
        if values.ndim < 2:
            writer.add_tensor(gguf_name(name), values)
        else:
            data = gguf.quants.quantize(values, stored)
            writer.add_tensor(gguf_name(name), data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: Any, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(float(config["rope_parameters"]["rope_theta"]))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
