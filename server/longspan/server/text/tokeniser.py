"""Streaming tokenisation whose ids equal those of the whole text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from longspan.server.text.cut_rule import CutRule
from longspan.server.text.cuts import cut_rule

PIECE_CHARS = 16 << 10
LEAST_CHARS = 2 << 10


@dataclass(frozen=True, slots=True, eq=False)
class TokenPiece:
    """The tokens of one stretch of text.

    Attributes:
        text: the stretch.
        start_char: where it starts, in code points of the document.
        ids: uint32 [tokens].
        offsets: int32 [tokens, 2], in code points of the document; None unless asked for.
    """

    text: str
    start_char: int
    ids: NDArray[np.uint32]
    offsets: NDArray[np.int32] | None


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer for documents: nothing is cut off, padded, added or taken for a control token.

    Text such as ``<|im_end|>`` in a document is ordinary text, whether its model calls
    the token special or not.
    """
    spec = json.loads(path.read_text("utf-8"))
    # A post-processor may also trim offsets, and treats the first token of a text apart.
    spec["truncation"] = spec["padding"] = spec["post_processor"] = None
    for token in spec.get("added_tokens") or []:
        # ``encode_special_tokens`` passes over special tokens only; as none of them is ever
        # matched, how it would match is of no account and must not hinder the cuts.
        token.update(special=True, normalized=False, single_word=False, lstrip=False, rstrip=False)
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.encode_special_tokens = True
    return tokenizer


@lru_cache(maxsize=8)
def _rule_of(tokenizer: Tokenizer) -> CutRule | None:
    """Serialising a large vocabulary takes half a second: once for all documents."""
    return cut_rule(tokenizer.to_str(), tokens_are_text=tokenizer.encode_special_tokens)


class StreamingTokeniser:
    """Tokenises text while it arrives, up to the last safe cut.

    ``feed`` and ``finish`` block and release the interpreter lock while they tokenise:
    the tokenizer's batch calls do, its single call does not. A batch uses all cores.

    Args:
        tokenizer: from ``load_tokenizer``, and not changed after its first use here.
        with_offsets: also say where each token stands.
        piece_chars: longest text given to the tokenizer as one item, where it can be cut.
        least_chars: text collected before the tokenizer is called.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        with_offsets: bool = False,
        piece_chars: int = PIECE_CHARS,
        least_chars: int = LEAST_CHARS,
    ) -> None:
        self._tokenizer = tokenizer
        self._rule = _rule_of(tokenizer)
        self._continuation = self._rule.continuation(tokenizer) if self._rule else tokenizer
        self._with_offsets = with_offsets
        self._piece_chars = piece_chars
        self._least_chars = least_chars
        # Text that waits. The first ``_searched`` parts hold no safe cut.
        self._parts: list[str] = []
        self._searched = 0
        self._fresh_chars = 0
        self._done_chars = 0

    def feed(self, text: str) -> list[TokenPiece]:
        """Take more text; return the pieces that no later text can change."""
        if not text:
            return []
        self._parts.append(text)
        self._fresh_chars += len(text)
        if self._rule is None or self._fresh_chars < self._least_chars:
            return []
        ready = self._take_ready(self._rule)
        return self._tokenise(self._split(ready)) if ready else []

    def finish(self) -> list[TokenPiece]:
        """The rest. The tokeniser is used up."""
        rest = "".join(self._parts)
        self._parts = []
        return self._tokenise(self._split(rest)) if rest else []

    def _take_ready(self, rule: CutRule) -> str:
        """Remove and return the text before the last safe cut; each character is seen once."""
        before = self._parts[self._searched - 1][-1] if self._searched else ""
        fresh = before + "".join(self._parts[self._searched :])
        cut = rule.last(fresh, 1, len(fresh))
        self._fresh_chars = 0
        if cut is None:
            self._parts[self._searched :] = [fresh[len(before) :]]
            self._searched += 1
            return ""
        ready = "".join([*self._parts[: self._searched], fresh[len(before) : cut]])
        self._parts, self._searched = [fresh[cut:]], 1
        return ready

    def _split(self, text: str) -> list[str]:
        """Cut a long text at safe cuts, so that a batch of pieces keeps all cores busy."""
        pieces, start = [], 0
        while self._rule is not None and len(text) - start > self._piece_chars:
            cut = self._rule.last(text, start + 1, start + self._piece_chars)
            if cut is None:
                cut = self._rule.first(text, start + self._piece_chars)
            if cut is None:
                break
            pieces.append(text[start:cut])
            start = cut
        return [*pieces, text[start:]]

    def _tokenise(self, texts: Sequence[str]) -> list[TokenPiece]:
        """Only the first piece of a document is tokenised as the start of a text."""
        first = 0 if self._done_chars else 1
        encodings = [
            *self._encode(self._tokenizer, texts[:first]),
            *self._encode(self._continuation, texts[first:]),
        ]
        return [self._piece(text, found) for text, found in zip(texts, encodings, strict=True)]

    def _encode(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
        encode = tokenizer.encode_batch if self._with_offsets else tokenizer.encode_batch_fast
        return encode(list(texts), add_special_tokens=False) if texts else []

    def _piece(self, text: str, encoding: Encoding) -> TokenPiece:
        start = self._done_chars
        self._done_chars += len(text)
        offsets = None
        if self._with_offsets:
            offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2) + np.int32(start)
        return TokenPiece(text, start, np.array(encoding.ids, np.uint32), offsets)
