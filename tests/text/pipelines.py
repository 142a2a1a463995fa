"""The tokenizers under test: real ones, and small ones trained here with the same patterns."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from longspan.server.encoders import tokenizer_path
from longspan.server.text.cuts import DEEPSEEK3, LLAMA3, QWEN2
from longspan.server.text.tokeniser import load_tokenizer
from tests.support.data import EXAMPLES, shared_data
from tests.text.texts import HARD

SHARED_NAMES = ("qwen", "deepseek_v3", "minilm")
TRAINED: dict[str, tuple[str, ...]] = {
    "trained qwen2": (QWEN2,),
    "trained llama3": (LLAMA3,),
    "trained deepseek3": DEEPSEEK3,
}
NAMES = (*SHARED_NAMES, "packaged minilm", *TRAINED)


@lru_cache(maxsize=len(NAMES))
def tokenizer_named(name: str) -> Tokenizer:
    """One of ``NAMES``, as a server loads it; skips the test where its file is absent."""
    if name in TRAINED:
        return _load(train(TRAINED[name]))
    if name in SHARED_NAMES:
        return load_tokenizer(shared_data("tokenizers", name, "tokenizer.json"))
    return load_tokenizer(tokenizer_path("embedded"))


def train(patterns: Sequence[str]) -> Tokenizer:
    """A byte-level BPE tokenizer of a thousand merges that splits by these patterns."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1300,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    texts = [path.read_text("utf-8") for path in sorted(EXAMPLES.glob("*.md"))]
    tokenizer.train_from_iterator([*texts, *HARD], trainer)
    tokenizer.add_tokens(["<｜User｜>", "<｜Assistant｜>"])
    return tokenizer


def _load(tokenizer: Tokenizer) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(tokenizer.to_str(), "utf-8")
        return load_tokenizer(path)
