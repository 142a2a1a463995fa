"""Where a text may be cut so that tokenising both sides equals tokenising the whole.

A cut before position ``p`` is *safe* when ``text[p - 1]`` is a letter or an ASCII digit and
``text[p]`` is one of a few white-space and CJK punctuation characters (``MARKS``). For the
pipelines recognised here this follows from four facts:

1. Normalising. No character of ``MARKS`` combines with what stands before it, so NFC and
   BertNormalizer (NFD, marks removed, lower case, spaces around ideographs; all local)
   work on both sides alone. A letter whose NFC form does not end in a letter (U+0958
   becomes a letter and a mark) is no place to cut.
2. Splitting. The patterns recognised match from left to right and look at most one
   character ahead, never behind, so what follows a match boundary does not depend on what
   precedes it. No alternative of them matches a letter or digit *followed by* a character
   of ``MARKS``, so there is always a boundary at ``p``. The only look-ahead, ``\\s+(?!\\S)``,
   is decided inside the left side, which does not end in white space. Where several splits
   follow each other (DeepSeek-V3: digits by threes, then runs of ideographs and kana, then
   words), ``p`` is a boundary of each: ``MARKS`` is disjoint from digits and from
   U+3040-U+30FF, which hold punctuation such as U+30FB beside the letters.
3. Modelling. BPE and WordPiece see one word at a time.
4. Added tokens are found in the raw text before all this. A character that follows a
   letter or digit inside any of them is taken out of ``MARKS``.

Letters are those of Unicode 3.2: every regular-expression engine agrees on them.
A pipeline that is not recognised gets no rule, and is tokenised in one piece.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Any

MARKS = frozenset(" \n\r\t，。；：！？、")

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"
LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)
_KNOWN_SPLITS = frozenset({(QWEN2,), (LLAMA3,), DEEPSEEK3})


@dataclass(frozen=True, slots=True)
class CutRule:
    """The safe cuts of one tokenizer.

    Attributes:
        marks: characters before which a cut is safe, if a letter or digit stands there.
    """

    marks: frozenset[str]

    def is_safe(self, text: str, position: int) -> bool:
        """True when ``text`` may be cut before ``position``, which is at least 1."""
        return text[position] in self.marks and _ends_word(text[position - 1])

    def last(self, text: str, start: int, end: int) -> int | None:
        """The last safe cut in ``[start, end)``; ``start`` is at least 1."""
        for position in range(end - 1, start - 1, -1):
            if self.is_safe(text, position):
                return position
        return None

    def first(self, text: str, start: int) -> int | None:
        """The first safe cut from ``start`` on, which is at least 1."""
        for position in range(start, len(text)):
            if self.is_safe(text, position):
                return position
        return None


def cut_rule(tokenizer_json: str) -> CutRule | None:
    """The rule for a serialised tokenizer; None when nothing is known about it."""
    spec = json.loads(tokenizer_json)
    if not (_is_byte_level_bpe(spec) or _is_bert(spec)):
        return None
    added = spec.get("added_tokens") or []
    if any(token["single_word"] or token["lstrip"] or token["rstrip"] for token in added):
        return None
    inside = {
        after
        for token in added
        for before, after in zip(token["content"], token["content"][1:], strict=False)
        if _ends_word(before)
    }
    return CutRule(MARKS - inside)


def _is_byte_level_bpe(spec: dict[str, Any]) -> bool:
    steps = _steps(spec.get("pre_tokenizer"), "pretokenizers")
    if spec["model"]["type"] != "BPE" or spec["model"].get("dropout") or not steps:
        return False
    *splits, last = steps
    patterns = tuple(split.get("pattern", {}).get("Regex") for split in splits)
    isolated = all(
        split["type"] == "Split" and split["behavior"] == "Isolated" and not split["invert"]
        for split in splits
    )
    byte_level = (
        last["type"] == "ByteLevel" and not last["add_prefix_space"] and not last["use_regex"]
    )
    return byte_level and isolated and patterns in _KNOWN_SPLITS and _only_nfc(spec)


def _only_nfc(spec: dict[str, Any]) -> bool:
    steps = _steps(spec.get("normalizer"), "normalizers")
    return all(step["type"] == "NFC" for step in steps)


def _is_bert(spec: dict[str, Any]) -> bool:
    normalizer = spec.get("normalizer") or {}
    pre_tokenizer = spec.get("pre_tokenizer") or {}
    return (
        spec["model"]["type"] == "WordPiece"
        and normalizer.get("type") == "BertNormalizer"
        and pre_tokenizer.get("type") == "BertPreTokenizer"
    )


def _steps(stage: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    if stage is None:
        return []
    return list(stage[name]) if stage["type"] == "Sequence" else [stage]


def _ends_word(character: str) -> bool:
    if character.isascii():
        return character.isalnum()
    if unicodedata.ucd_3_2_0.category(character)[0] != "L":
        return False
    normal = unicodedata.normalize("NFC", character)
    return unicodedata.ucd_3_2_0.category(normal[-1])[0] == "L"
