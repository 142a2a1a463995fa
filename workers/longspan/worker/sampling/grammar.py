"""Holds a text to a JSON schema or a regular expression, one token at a time, by llguidance."""

from __future__ import annotations

import json
from collections.abc import Iterable

import torch
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

from longspan.worker.failures import StartFailure
from longspan.worker.sampling.grammar_source import check, grammar_source, parser_limits
from longspan.worker.sampling.params import GrammarSpec
from longspan.worker.sampling.pieces import byte_level_alphabet

WORD_BITS = 32


class Grammars:
    """Compiles grammars for one model's tokens. Slow to make: about a second.

    Args:
        tokenizer: of the model.
        vocabulary: width of the model's logits; tokens from there on are never allowed.
        stop_tokens: the model's own; a complete text allows them.

    Raises:
        StartFailure: llguidance cannot read this tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, stop_tokens: Iterable[int]) -> None:
        stops = list(stop_tokens)
        size = max(vocabulary, max(tokenizer.get_vocab().values(), default=-1) + 1)
        try:
            spec = without_added_text(tokenizer)
            self._tokens = LLTokenizer(spec, n_vocab=size, eos_token=stops or None)
        except ValueError as error:
            raise StartFailure(f"no grammars with this tokenizer: {error}") from error
        self._limits = parser_limits()
        self._free_mask = _all_but(self._tokens.eos_tokens, size)

    def compile(self, spec: GrammarSpec) -> Constraint:
        """A constraint at its beginning.

        Raises:
            BadGrammar: it does not compile.
        """
        grammar = grammar_source(spec)
        matcher = LLMatcher(self._tokens, grammar, log_level=0, limits=self._limits)
        check(matcher)
        return Constraint(matcher, self._tokens, spec.begins_after.encode(), self._free_mask)


class Constraint:
    """What one sequence may say next.

    Where the grammar begins later, everything but the model's stop tokens is allowed until then.
    The text that it waits for may be a special token; what follows in the token that completes
    it is the first that the grammar governs.
    """

    def __init__(
        self, matcher: LLMatcher, tokens: LLTokenizer, begins_after: bytes, free_mask: torch.Tensor
    ) -> None:
        self._matcher = matcher
        self._tokens = tokens
        self._awaited = begins_after
        self._tail = b""
        self._free_mask = free_mask

    @property
    def finished(self) -> bool:
        """True when the text is complete and nothing may follow."""
        return not self._awaited and bool(self._matcher.is_stopped())

    def mask(self) -> torch.Tensor:
        """The tokens allowed next, a bit each, lowest first: int32 [vocabulary / 32] or longer.

        Raises:
            BadGrammar: the grammar needs more than llguidance's limits.
        """
        if self._awaited:
            return self._free_mask
        bits = self._matcher.compute_bitmask()
        check(self._matcher)
        return torch.frombuffer(bytearray(bits), dtype=torch.int32)

    def accept(self, token: int) -> None:
        """Go on behind a token that is no stop token.

        Raises:
            BadGrammar: the grammar does not allow it.
        """
        if self._awaited:
            self._wait(self._tokens.decode_bytes([token]))
        else:
            self._consume([token])

    def _wait(self, text: bytes) -> None:
        self._tail += text
        before, found, rest = self._tail.partition(self._awaited)
        if found:
            self._awaited = self._tail = b""
            self._consume(self._tokens.tokenize_bytes(rest))
        else:
            self._tail = before[max(0, len(before) - len(self._awaited) + 1) :]

    def _consume(self, tokens: list[int]) -> None:
        self._matcher.consume_tokens(tokens)
        check(self._matcher)


def _all_but(tokens: Iterable[int], size: int) -> torch.Tensor:
    """A mask that allows every token below ``size`` but these."""
    words = torch.full((-(-size // WORD_BITS),), -1, dtype=torch.int32)
    for token in tokens:
        words[token // WORD_BITS] &= ~(1 << token % WORD_BITS)
    return words


def without_added_text(tokenizer: Tokenizer) -> str:
    """The tokenizer's JSON with added tokens that are text, as ``<think>`` may be, made ordinary.

    llguidance takes every added token for a control token, which no text can contain, but its
    forced text is tokenised with them: the two do not agree.
    """
    spec = json.loads(tokenizer.to_str())
    if spec["model"]["type"] != "BPE":
        return tokenizer.to_str()
    vocabulary = spec["model"]["vocab"]
    byte_level = spec["decoder"] is not None and spec["decoder"]["type"] == "ByteLevel"
    kept = []
    for token in spec["added_tokens"]:
        # Those that stay are named in the vocabulary too: else they would be numbered anew.
        special = token["special"]
        name = token["content"] if special else _ordinary_name(token["content"], byte_level)
        if vocabulary.setdefault(name, token["id"]) != token["id"] or special:
            kept.append(token)
    spec["added_tokens"] = kept
    return json.dumps(spec)


def _ordinary_name(text: str, byte_level: bool) -> str:
    """How the vocabulary spells a token that reads ``text``."""
    if not byte_level:
        return text.replace(" ", "▁")
    characters = {byte: character for character, byte in byte_level_alphabet().items()}
    return "".join(characters[byte] for byte in text.encode())
