"""Writes a small decoder with random weights: the whole engine runs, the answers are nonsense.

python examples/random_decoder.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 2048


def main(folder: Path) -> None:
    """Write tokenizer, configuration and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    write_model(folder)
    print(f"longspan serve --model {folder}")


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE trained on the example documents."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    from longspan.server.text.cuts import QWEN2

    tokenizer = Tokenizer(models.BPE())
    # Words are split as Qwen splits them: such text can be tokenised while it arrives.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    documents = sorted(str(path) for path in Path(__file__).parent.glob("*.md"))
    tokenizer.train(documents, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def write_model(folder: Path) -> None:
    """A Qwen2 of two layers that reads 32,768 tokens."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0)
    model.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
