"""Tokens of the prompt around the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from longspan.server.decoder.template import PromptParts
from longspan.server.errors import ConfigError
from longspan.server.text.tokeniser import load_tokenizer

Ids = NDArray[np.uint32]


@dataclass(frozen=True, slots=True, eq=False)
class PromptTokens:
    """A prompt but for its documents, each part a uint32 array.

    Attributes:
        prefix: before the first document; the same for every task.
        separator: between two documents.
        suffix: after the last document.
    """

    prefix: Ids
    separator: Ids
    suffix: Ids


class PromptTokeniser:
    """Control tokens are read in the template's own text and nowhere else.

    A question that spells a control token is text like any other, as a document is.

    Args:
        control: the model's tokenizer as it is; it reads control tokens.
        plain: the tokenizer of documents (``load_tokenizer``); it reads none.
    """

    def __init__(self, control: Tokenizer, plain: Tokenizer) -> None:
        self._control = control
        self._plain = plain
        self._beginning = _beginning(control)
        self._added = _added_tokens(control)

    @property
    def plain(self) -> Tokenizer:
        """The tokenizer of documents."""
        return self._plain

    def tokenise(self, parts: PromptParts) -> PromptTokens:
        """Tokens of a prompt. Blocking, some milliseconds for a long question.

        The beginning-of-sequence token stands there once, whether the template has it or the
        tokenizer adds it.
        """
        prefix = self._encode(parts.head + parts.opening)
        if prefix[: len(self._beginning)] != self._beginning:
            prefix = self._beginning + prefix
        return PromptTokens(
            _ids(prefix), _ids(self._encode_plain(parts.separator)), _ids(self._suffix(parts))
        )

    def _suffix(self, parts: PromptParts) -> list[int]:
        """Tokenised as a whole, as its model knows it, unless the text spells control tokens."""
        tail = self._encode(parts.tail)
        whole = self._encode(parts.closing + parts.tail)
        if self._controls(whole) == self._controls(tail):
            return whole
        return self._encode_plain(parts.closing) + tail

    def _controls(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token in self._added]

    def _encode(self, text: str) -> list[int]:
        return list(self._control.encode(text, add_special_tokens=False).ids)

    def _encode_plain(self, text: str) -> list[int]:
        return list(self._plain.encode(text, add_special_tokens=False).ids)


def load_prompt_tokeniser(folder: Path) -> PromptTokeniser:
    """The tokenizers of the model in ``folder``. Blocking, up to seconds.

    Raises:
        ConfigError: there is no ``tokenizer.json``, or it cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(f"{folder.name}: no tokenizer.json")
    try:
        control = Tokenizer.from_file(str(path))
        plain = load_tokenizer(path)
    # The tokenizers library raises this class itself, not one below it.
    except Exception as error:
        raise ConfigError(f"{folder.name}: tokenizer.json cannot be read: {error}") from error
    control.no_truncation()
    control.no_padding()
    return PromptTokeniser(control, plain)


def _beginning(tokenizer: Tokenizer) -> list[int]:
    """What the tokenizer's post-processor puts before every text."""
    found = tokenizer.encode("a", add_special_tokens=True)
    content = found.special_tokens_mask.index(0)
    return list(found.ids[:content])


def _added_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens found before the text is split into words, but for those of white space."""
    added = tokenizer.get_added_tokens_decoder()
    return frozenset(i for i, token in added.items() if token.content.strip(" \t\r\n▁"))


def _ids(ids: Sequence[int]) -> Ids:
    return np.array(ids, np.uint32)
