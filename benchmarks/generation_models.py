"""Random Qwen2 models to measure with: of a size that is chosen, with a tokenizer that fits."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.texts import REPOSITORY

QWEN_TOKENIZER = REPOSITORY.parent / "shared" / "data" / "tokenizers" / "qwen" / "tokenizer.json"
QWEN_VOCABULARY = 151_936
CONTEXT_TOKENS = 131_072
DEVIATION = 0.1
"""Of the random weights; transformers' own 0.02 makes a model that repeats its last token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """A Qwen2's sizes; 64 or 128 floats a head, as real ones have."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = True

    def kv_floats(self) -> int:
        """Floats that all layers keep for one token."""
        return 2 * self.layers * self.kv_heads * (self.hidden // self.heads)


HUNDRED_MILLION = ModelSize(
    hidden=768, intermediate=2560, layers=12, heads=12, kv_heads=2, vocabulary=32_000
)
SMALL = ModelSize(
    hidden=128, intermediate=24_576, layers=2, heads=2, kv_heads=1, vocabulary=QWEN_VOCABULARY
)
"""Attention is a third of a 32k-token prefill's operations, as in R1-Distill-Qwen-7B. It matters:
under an even pace a quarter of attention's work is left when the text ends, however good the
engine. So a third leaves at least 8 % of a one-shot prefill; a half, as in the 1.5B model, 12 %."""
TINY = ModelSize(hidden=64, intermediate=8192, layers=1, heads=1, kv_heads=1, vocabulary=32_000)
"""Wide inside for the same reason."""
QWEN_1_5B = ModelSize(
    hidden=1536,
    intermediate=8960,
    layers=28,
    heads=12,
    kv_heads=2,
    vocabulary=QWEN_VOCABULARY,
    tied=False,
)
QWEN_7B = ModelSize(
    hidden=3584,
    intermediate=18_944,
    layers=28,
    heads=28,
    kv_heads=4,
    vocabulary=152_064,
    tied=False,
)
"""R1-Distill-Qwen-1.5B and -7B: their embeddings are not tied."""


def write_model(
    size: ModelSize,
    folder: Path,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    context_tokens: int = CONTEXT_TOKENS,
) -> Path:
    """Write a random model that never ends an answer by itself; returns ``folder``.

    The same size gives the same weights on the same device.
    """
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    auto: Any = transformers
    config = auto.AutoConfig.for_model(
        "qwen2",
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        vocab_size=size.vocabulary,
        tie_word_embeddings=size.tied,
        max_position_embeddings=context_tokens,
        initializer_range=DEVIATION,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        model = auto.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.generation_config = auto.GenerationConfig(eos_token_id=None)
    model.save_pretrained(folder)
    write_tokenizer(size.vocabulary, folder)
    return folder


def write_tokenizer(vocabulary: int, folder: Path) -> None:
    """Qwen's own for a vocabulary of its size where the machine has it, else one made of pairs."""
    if vocabulary >= QWEN_VOCABULARY and QWEN_TOKENIZER.exists():
        shutil.copyfile(QWEN_TOKENIZER, folder / "tokenizer.json")
    else:
        _write_pairs(vocabulary, folder)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")


def _write_pairs(vocabulary: int, folder: Path) -> None:
    """A byte-level BPE of bytes, pairs and triples of them: no training, every id has a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(itertools.product(letters, letters))
    triples = ((left + right, third) for (left, right), third in itertools.product(pairs, letters))
    merges = list(
        itertools.islice(itertools.chain(pairs, triples), max(vocabulary - len(letters), 0))
    )
    tokens = [*letters, *(left + right for left, right in merges)]
    ids = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
