"""What each token of a decoder's vocabulary adds to a text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from longspan.worker.failures import StartFailure

Piece = bytes | str
"""Bytes join their neighbours' to characters; a str is whole, and ends bytes before it."""

BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


class Pieces:
    """The pieces of one tokenizer, as its decoder in ``tokenizer.json`` makes them.

    Byte-level BPE, and what sentencepiece models are converted to: byte fallback, Metaspace.
    Special tokens and ids that are no tokens have no piece.

    Attributes:
        byte_level: True where every piece is bytes.
        leading_spaces: how many spaces the beginning of a text loses.

    Raises:
        StartFailure: the decoder is of another kind.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().items()
        self._hidden = frozenset(token for token, content in added if content.special)
        steps = _steps(tokenizer)
        kinds = [step["type"] for step in steps]
        self.byte_level = kinds == ["ByteLevel"]
        self._alphabet = byte_level_alphabet() if self.byte_level else {}
        self._fallback = "ByteFallback" in kinds
        replacing = [step for step in steps if step["type"] in ("Replace", "Metaspace")]
        self._replaced = [_replacement(step) for step in replacing]
        self._first = [_replacement(step, first=True) for step in replacing]
        self.leading_spaces = sum(_stripped(s) for s in steps if s["type"] == "Strip")

    def piece(self, token: int, *, first: bool = False) -> Piece | None:
        """What the token adds, at the beginning of a text or not; None: special or unknown."""
        name = None if token in self._hidden else self._tokenizer.id_to_token(token)
        if name is None:
            return None
        if self.byte_level:
            return self._bytes(name)
        byte = BYTE_TOKEN.fullmatch(name) if self._fallback else None
        if byte:
            return bytes.fromhex(byte[1])
        for old, new in self._first if first else self._replaced:
            name = name.replace(old, new)
        return name

    def _bytes(self, name: str) -> bytes:
        try:
            return bytes([self._alphabet[character] for character in name])
        except KeyError:  # an added token, written as it is
            return name.encode()


def _steps(tokenizer: Tokenizer) -> Sequence[Mapping[str, Any]]:
    """The decoder's steps, all of a kind that can be streamed."""
    decoder = tokenizer.decoder
    described: Any = json.loads(decoder.__getstate__()) if decoder else {"type": "none"}
    steps: Sequence[Mapping[str, Any]] = described.get("decoders", [described])
    kinds = "".join(f"{step['type']} " for step in steps)
    if not re.fullmatch(
        "ByteLevel |Metaspace |(Replace )*(ByteFallback )?(Fuse (Strip )?)?", kinds
    ):
        raise StartFailure(f"the tokenizer's decoder is not supported: {kinds}")
    return steps


def _replacement(step: Mapping[str, Any], *, first: bool = False) -> tuple[str, str]:
    if step["type"] == "Metaspace":
        return step["replacement"], "" if first and step["prepend_scheme"] != "never" else " "
    pattern = step["pattern"].get("String")
    if pattern is None:
        raise StartFailure("the tokenizer's decoder is not supported: Replace with a regex")
    return pattern, step["content"]


def _stripped(step: Mapping[str, Any]) -> int:
    if step["content"] != " " or step["stop"] != 0:
        raise StartFailure("the tokenizer's decoder is not supported: Strip of another kind")
    return int(step["start"])


def byte_level_alphabet() -> dict[str, int]:
    """Which character stands for which byte in byte-level vocabularies (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + index): byte for index, byte in enumerate(others)}
