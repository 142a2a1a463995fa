"""Small tokenizers with the published pipelines of SentencePiece-style BPE, as a server loads them.

The pipelines are those of Llama 2 and TinyLlama (Prepend and Replace), Mistral 7B v0.3 and
newer conversions of Llama 2 (Metaspace), and Gemma (Replace, a Split that never finds
anything, tokens of many newlines and spaces). The others are pipelines that some model might
have, and that the rule must survive.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from longspan.server.text.cuts import O200K, TEKKEN
from longspan.server.text.tokeniser import load_tokenizer
from tests.support.data import shared_data
from tests.text.corpus import OWN, long_texts

REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND = {"type": "Prepend", "prepend": "▁"}
LEGACY = {"type": "Sequence", "normalizers": [PREPEND, REPLACE]}
IDLE_SPLIT = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
RUNS = tuple(character * 2**power for character in "\n▁" for power in range(1, 5))
SPECIAL = ("<unk>", "<s>", "</s>", "<|im_end|>")


def metaspace(scheme: str, *, split: bool = False) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


# Normaliser, pre-tokenizer, and what the model has beside the defaults of ``sentencepiece``.
Pipeline = tuple[dict[str, Any] | None, dict[str, Any] | None, dict[str, Any]]
PIPELINES: dict[str, Pipeline] = {
    "llama2": (LEGACY, None, {}),
    "mistral": (None, metaspace("first"), {}),
    "metaspace always": (None, metaspace("always"), {}),
    "metaspace never": (None, metaspace("never"), {}),
    "gemma": (REPLACE, IDLE_SPLIT, {"runs": RUNS}),
    "no bytes": (LEGACY, None, {"bytes": 0, "byte_fallback": False}),
    "no bytes, not fused": (LEGACY, None, {"bytes": 0, "fuse_unk": False}),
    "some bytes": (LEGACY, None, {"bytes": 0xE5}),
    "merges over spaces": (LEGACY, None, {"over_spaces": True}),
    "words": (None, metaspace("first", split=True), {"ignore_merges": True}),
}
BYTE_LEVEL = {"gpt oss": (O200K, "Isolated"), "gpt 4o": (O200K, "Removed"), "tekken": (TEKKEN, "")}
MERGING = (*PIPELINES, "stories260K")
FAMILIES = (*MERGING, *BYTE_LEVEL)


@lru_cache(maxsize=len(FAMILIES))
def family(name: str) -> Tokenizer:
    """One of ``FAMILIES``; skips the test where a real one is absent."""
    if name == "stories260K":
        return load_tokenizer(shared_data("models", name, "hf", "tokenizer.json"))
    spec = _byte_level(name) if name in BYTE_LEVEL else sentencepiece(*PIPELINES[name])
    return loaded(spec)


def loaded(spec: dict[str, Any]) -> Tokenizer:
    """The tokenizer of this JSON as a server loads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(spec), "utf-8")
        return load_tokenizer(path)


def sentencepiece(
    normalizer: dict[str, Any] | None,
    pre_tokenizer: dict[str, Any] | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """The JSON of a SentencePiece-style BPE tokenizer trained on our own texts."""
    options = dict(options)
    spec = json.loads(_trained(options.pop("over_spaces", False)))
    model = spec["model"]
    names = [f"<0x{byte:02X}>" for byte in range(options.pop("bytes", 256))]
    runs = options.pop("runs", ())
    model["merges"] = [[run[len(run) // 2 :]] * 2 for run in runs] + model["merges"]
    names += [character for character in "\n" if runs] + list(runs)
    model["vocab"] |= {name: len(model["vocab"]) + at for at, name in enumerate(names)}
    model |= {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, **options}
    return {**spec, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}


@lru_cache(maxsize=2)
def _trained(over_spaces: bool) -> str:
    """A vocabulary without newlines and rare characters, as JSON; words apart or not."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    if not over_spaces:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    texts = [*OWN.values(), *(text[:30_000] for text in long_texts()[:4])]
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        show_progress=False,
        limit_alphabet=200,
        special_tokens=list(SPECIAL),
    )
    tokenizer.train_from_iterator(_lines(texts), trainer)
    return tokenizer.to_str()


def _lines(texts: Sequence[str]) -> list[str]:
    """Short lines: a long one is a single word where nothing splits it."""
    return [line[at : at + 60] for text in texts for line in text.split("\n")
            for at in range(0, len(line), 60)]  # fmt: skip


def _byte_level(name: str) -> dict[str, Any]:
    """Byte-level BPE that splits as this family does, with its published options."""
    pattern, behaviour = BYTE_LEVEL[name]
    tokenizer = Tokenizer(models.BPE())
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": behaviour or "Isolated",
        "invert": behaviour == "Removed",
    }
    byte_level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps = [split, {"type": "ByteLevel", **byte_level}]
    spec = json.loads(tokenizer.to_str())
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
    )
    tokenizer.train_from_iterator([*OWN.values(), long_texts()[0][:60_000]], trainer)
    spec = json.loads(tokenizer.to_str())
    spec["model"]["ignore_merges"] = name == "tekken"
    return dict(spec)
