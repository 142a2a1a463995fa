"""Tiny random decoders of every architecture that is tested, each with a real tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import torch

TINY = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 16,
    "hidden_size": 64,
    "initializer_range": 0.25,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "vocab_size": 384,
}
LATENT = {
    "first_k_dense_replace": 1,
    "head_dim": 8,
    "kv_lora_rank": 24,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "topk_group": 1,
    "v_head_dim": 12,
}
SLIDING, FULL = "sliding_attention", "full_attention"
DIFFERENCES: dict[str, dict[str, object]] = {
    "qwen2": {},
    "llama": {},
    "qwen3": {},
    "mistral": {"sliding_window": 24},
    "gemma3_text": {"sliding_window": 24, "layer_types": [SLIDING, FULL, SLIDING]},
    "gpt_oss": {"sliding_window": 24, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": dict(LATENT),
}
ARCHITECTURES = tuple(DIFFERENCES)

SPECIAL_TOKENS = (
    "<|pad|>",
    "<|begin|>",
    "<|end|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|user|>",
    "<|assistant|>",
)
THINKING_TOKENS = ("<think>", "</think>")
"""Single tokens that are text all the same, as in DeepSeek-R1's tokenizers."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
R1 = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' + message['content'].split('</think>')[-1] + eos_token }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}"
)
TEXT = (
    "The patient was seen on Monday; the report says that the treatment helped.",
    "This agreement is made between the two parties and may be ended by either of them.",
    "Die Lieferung erfolgt innerhalb von 14 Tagen. Что сказано в документе? 患者の記録。",
    "{'name': 'value', \"count\": 3}\n\n  indented text, again and again.",
)


def tiny_decoder(
    architecture: str,
    folder: Path,
    *,
    context_tokens: int = 4096,
    chat_template: str | None = None,
    stop_tokens: tuple[int, ...] = (2, 4),
    shard_bytes: int | str = "5GB",
    seed: int = 0,
    **overrides: object,
) -> Path:
    """Write a random decoder and everything that a worker and a server need; returns ``folder``.

    ``overrides`` are keys of config.json; ``chat_template`` is a Jinja text such as ``CHATML``.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    settings = {**TINY, "max_position_embeddings": context_tokens} | DIFFERENCES[architecture]
    if architecture == "gpt_oss":
        settings["rope_parameters"] = _yarn(context_tokens)
    config = AutoConfig.for_model(architecture, **settings | overrides)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=list(stop_tokens), pad_token_id=0
    )
    model.save_pretrained(folder, max_shard_size=shard_bytes)
    save_tokenizer(folder, vocabulary=TINY["vocab_size"], chat_template=chat_template)
    return folder


def _yarn(context_tokens: int) -> dict[str, object]:
    """Rotary parameters that stretch to ``context_tokens``, as GPT-OSS has them."""
    return {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 4.0,
        "original_max_position_embeddings": context_tokens // 4,
        "rope_theta": 150_000.0,
        "rope_type": "yarn",
        "truncate": False,
    }


def save_tokenizer(folder: Path, *, vocabulary: object, chat_template: str | None = None) -> None:
    """Train a byte-level BPE on a few sentences, and write its two files."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    assert isinstance(vocabulary, int)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(THINKING_TOKENS),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 20, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in THINKING_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if chat_template is not None:
        settings["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
