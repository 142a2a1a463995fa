"""Safe cuts for SentencePiece-style BPE, which merges over the whole text.

Known are the pipelines of Llama 2, Mistral 7B and Gemma: spaces become ``▁``, a first ``▁``
may be put before the text, nothing splits it, and characters that the vocabulary lacks
become byte tokens (``<0x0A>``) or the unknown token. A cut between the characters ``x`` and
``y`` is safe when no merge ``(a, b)`` of the vocabulary bridges it. This follows from:

1. The symbols. ``y`` is a token of its own, so a run of unknown characters ends before it
   (``fuse_unk``), and the first symbols on both sides of the cut are those of the sides
   alone. The name of a merged symbol is the names of its two parts in a row. What starts at
   the cut is therefore always named with ``y`` in front; what ends there is named with ``x``
   at the end, or, if ``x`` is no token, with the end of what stands for it: the ``>`` of a
   byte token, or the last character of the unknown token.
2. The merges. A merge over the cut would be a pair ``(a, b)`` in which ``a`` ends so and ``b``
   begins with ``y``. All merges were looked at, and none does.
3. The order. Merging takes the pair of the lowest rank, then the leftmost. As no pair over
   the cut is ever a candidate, each side does its own merges, in the order it would alone.
4. Spaces. Each space becomes ``▁`` on its own; the one put before the text is put before the
   first piece alone: ``continuation`` puts none.

Where Metaspace also splits before each ``▁``, words are modelled one by one: a cut before a
space is safe, whatever the merges are. ``ignore_merges`` looks a whole word up first; where
the text is one word, a piece of it could be found that the merges do not make, so such a
pipeline has no rule. No token may be matched in the text before all this (each stretch
between two matches would begin with a ``▁`` of its own).

Unigram models (T5, XLM-R) look for the best path through the whole text: there is no rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from longspan.server.text.cut_rule import CutRule

SPACE = "▁"

_PREPEND = {"type": "Prepend", "prepend": SPACE}
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
# Gemma's: no space is left for it to split at.
_IDLE_SPLIT = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}


@dataclass(frozen=True, slots=True)
class MergeCuts(CutRule):
    """The safe cuts between characters that no merge bridges.

    Attributes:
        alphabet: characters that are tokens.
        bridged: pairs of characters, last and first of the parts of some merge.
        stand_ins: how the names of tokens for other characters may end; empty where such
            characters may vanish.
        split: words are modelled one by one, so that cuts before all spaces are safe, and
            no others.
    """

    alphabet: frozenset[str]
    bridged: frozenset[str]
    stand_ins: frozenset[str]
    split: bool

    def is_safe(self, text: str, position: int) -> bool:
        """True when ``text`` may be cut before ``position``, which is at least 1."""
        before, after = _symbol(text[position - 1]), _symbol(text[position])
        if self.split:
            return after == SPACE
        if after not in self.alphabet:
            return False
        if before in self.alphabet:
            return before + after not in self.bridged
        return bool(self.stand_ins) and all(
            end + after not in self.bridged for end in self.stand_ins
        )

    def continuation(self, tokenizer: Tokenizer) -> Tokenizer:
        """A tokenizer with the same model that puts no space before the text."""
        rest = Tokenizer(tokenizer.model)
        rest.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement=SPACE, prepend_scheme="never", split=self.split
        )
        return rest


def _symbol(character: str) -> str:
    return SPACE if character == " " else character


def merge_cuts(spec: dict[str, Any], *, tokens_are_text: bool) -> MergeCuts | None:
    """The rule for a parsed tokenizer; None when its pipeline is not one of those above.

    Args:
        spec: the tokenizer's JSON, as ``Tokenizer.to_str`` writes it.
        tokens_are_text: special tokens are never matched (``encode_special_tokens``).
    """
    model = spec["model"]
    split = _splits(spec)
    if split is None or not _merges_alone(model) or not _no_match(spec, tokens_are_text):
        return None
    if split:
        return MergeCuts(frozenset(), frozenset(), frozenset(), split=True)
    if model.get("ignore_merges"):
        return None
    return MergeCuts(
        alphabet=frozenset(name for name in model["vocab"] if len(name) == 1),
        bridged=frozenset(left[-1] + right[0] for left, right in model["merges"]),
        stand_ins=_stand_ins(model),
        split=False,
    )


def _splits(spec: dict[str, Any]) -> bool | None:
    """Whether the pipeline splits before spaces; None when it is not known."""
    normalizer, pre_tokenizer = spec.get("normalizer"), spec.get("pre_tokenizer")
    if normalizer is None:
        metaspace = pre_tokenizer or {}
        known = metaspace.get("type") == "Metaspace" and metaspace.get("replacement") == SPACE
        return bool(metaspace.get("split", True)) if known else None
    steps = normalizer.get("normalizers", [normalizer])
    known = steps in ([_REPLACE], [_PREPEND, _REPLACE]) and pre_tokenizer in (None, _IDLE_SPLIT)
    return False if known else None


def _merges_alone(model: dict[str, Any]) -> bool:
    """True for BPE whose tokens depend on nothing but the symbols of a word."""
    affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    return model.get("type") == "BPE" and not model.get("dropout") and not affixes


def _no_match(spec: dict[str, Any], tokens_are_text: bool) -> bool:
    added = spec.get("added_tokens") or []
    return not added or (tokens_are_text and all(token["special"] for token in added))


def _stand_ins(model: dict[str, Any]) -> frozenset[str]:
    vocabulary, unknown = model["vocab"], str(model.get("unk_token") or "")
    if model.get("byte_fallback") and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)):
        return frozenset(">")
    return frozenset({">", unknown[-1]}) if unknown in vocabulary else frozenset()
