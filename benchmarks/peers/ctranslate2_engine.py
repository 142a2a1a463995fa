"""CTranslate2: a float32 model in its own format, made on the way in.

    python -m benchmarks.peers.ctranslate2_engine FOLDER THREADS

Runs under the interpreter that has ``ctranslate2``. Prompts of one length go as one batch, in
others of which it would read all but the shortest token by token; a beginning that all prompts
share is its static prompt, whose state it keeps.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import ctranslate2  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np
from ctranslate2.specs import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    common_spec,
    transformer_spec,
)

from benchmarks.peers.protocol import Answer, Clock, Engine, Work, serve
from benchmarks.peers.safetensors_file import Float32, read_float32

UNUSED = "unused"
"""The end of a text: a token past the vocabulary, so that no answer ends by itself."""


class CTranslate2:
    """One loaded model; its tokens are the decimals of their ids."""

    def __init__(self, folder: Path, threads: int) -> None:
        with tempfile.TemporaryDirectory() as converted:
            convert(folder, Path(converted))
            self._generator = ctranslate2.Generator(
                converted, device="cpu", compute_type="float32", intra_threads=threads
            )

    def answer(self, work: Work) -> list[Answer]:
        """Requests that arrive at once."""
        shared = shared_tokens(work.prompts)
        lengths = {len(prompt) for prompt in work.prompts}
        started = time.perf_counter()
        clocks = [Clock(started) for _ in work.prompts]

        def count(step: Any) -> bool:
            clocks[first + step.batch_id].token(step.token_id)
            return False

        rows = len(work.prompts) if len(lengths) == 1 else 1
        for first in range(0, len(work.prompts), rows):
            self._generator.generate_batch(
                [_names(prompt[shared:]) for prompt in work.prompts[first : first + rows]],
                static_prompt=_names(work.prompts[0][:shared]) or None,
                max_length=work.new_tokens,
                min_length=work.new_tokens,
                include_prompt_in_result=False,
                callback=count,
            )
        return [clock.answer() for clock in clocks]


def shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all of several prompts begin with; at least one of each is left."""
    if len(prompts) == 1:
        return 0
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _names(tokens: Sequence[int]) -> list[str]:
    return [str(token) for token in tokens]


def convert(folder: Path, target: Path) -> None:
    """Write a Qwen2 with tied embeddings in CTranslate2's format."""
    config = json.loads((folder / "config.json").read_bytes())
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        config["num_hidden_layers"],
        config["num_attention_heads"],
        activation=common_spec.Activation.SWISH,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=False,
        rotary_base=config["rope_parameters"]["rope_theta"],
        num_heads_kv=config["num_key_value_heads"],
    )
    weights = read_float32(folder / "model.safetensors")
    _fill(spec.decoder, weights)
    spec.config.layer_norm_epsilon = config["rms_norm_eps"]
    spec.config.unk_token = spec.config.bos_token = spec.config.eos_token = UNUSED
    spec.register_vocabulary([*_names(range(config["vocab_size"])), UNUSED])
    spec.validate()
    spec.optimize()
    spec.save(str(target))


def _fill(decoder: Any, weights: Mapping[str, Float32]) -> None:
    embeddings = weights["model.embed_tokens.weight"]
    # The row of the unused token: its logit is 0 and never the largest.
    embeddings = np.concatenate([embeddings, np.zeros_like(embeddings[:1])])
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = embeddings
    decoder.layer_norm.gamma = weights["model.norm.weight"]
    for number, layer in enumerate(decoder.layer):
        prefix = f"model.layers.{number}."
        inside = {
            name.removeprefix(prefix): value
            for name, value in weights.items()
            if name.startswith(prefix)
        }
        _fill_layer(layer, inside)


def _fill_layer(layer: Any, weights: Mapping[str, Float32]) -> None:
    attention, ffn = layer.self_attention, layer.ffn
    attention.layer_norm.gamma = weights["input_layernorm.weight"]
    ffn.layer_norm.gamma = weights["post_attention_layernorm.weight"]
    for kind in ("weight", "bias"):
        fused = [weights[f"self_attn.{name}_proj.{kind}"] for name in "qkv"]
        setattr(attention.linear[0], kind, np.concatenate(fused))
    attention.linear[1].weight = weights["self_attn.o_proj.weight"]
    ffn.linear_0.weight = weights["mlp.gate_proj.weight"]
    ffn.linear_0_noact.weight = weights["mlp.up_proj.weight"]
    ffn.linear_1.weight = weights["mlp.down_proj.weight"]


def start(arguments: Sequence[str]) -> Engine:
    """Convert and load the folder."""
    folder, threads = arguments
    return CTranslate2(Path(folder), int(threads)).answer


if __name__ == "__main__":
    serve(start)
