"""Models for tests: the embedded one, and a tiny random BERT."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from longspan.worker.encoding.encoder import Encoder
from longspan.worker.encoding.loading import load_encoder
from longspan.worker.model_files import EMBEDDED_PACKAGE, find_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnop"]


def skip_without_embedded() -> None:
    """Skip the test where the embedded model is not installed."""
    if find_spec(EMBEDDED_PACKAGE) is None:
        pytest.skip(f"the package {EMBEDDED_PACKAGE} is not installed")


def load(spec: str | Path) -> Encoder:
    """An encoder on the CPU in float32."""
    return load_encoder(find_model(str(spec)), device="cpu", dtype="float32")


def save_tiny_model(folder: Path) -> Path:
    """Write a random BERT of 2 layers with everything a worker needs."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.processors import BertProcessing
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    torch.manual_seed(0)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
