"""The words of the recall task, and the tokenizer that knows them."""

from __future__ import annotations

import json
from pathlib import Path

PAD, END, ASK = 0, 1, 2
SPACE = "\u0120"
"""Before every word: a space, as byte-level vocabularies write it."""

SPECIAL = ("<pad>", ";", "?")
KEYS = range(3, 3 + 256)
"""Names of records. A document has each at most once."""

VALUES = range(KEYS.stop, KEYS.stop + 256)
FILLER = range(VALUES.stop, 2048)
SIZE = FILLER.stop


def words() -> list[str]:
    """All words, by their ids."""
    named = (("k", KEYS), ("v", VALUES), ("w", FILLER))
    return [*SPECIAL, *(f"{letter}{index}" for letter, ids in named for index in range(len(ids)))]


def save_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json: one token a word, words between spaces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    ids = {SPACE + word: index for index, word in enumerate(words())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=SPACE + SPECIAL[PAD]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {"eos_token": SPACE + SPECIAL[END], "pad_token": SPACE + SPECIAL[PAD]}
    text = json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", "utf-8")
