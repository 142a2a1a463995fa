"""Where a text may be cut so that tokenising both sides equals tokenising the whole.

``merge_cuts`` has the rule of SentencePiece-style BPE. The rest of this module is about
pipelines that split a text into words first. There a cut before position ``p`` is *safe* when
``text[p - 1]`` is a letter or an ASCII digit and ``text[p]`` is one of a few white-space and
CJK punctuation characters (``MARKS``). For the pipelines of Qwen2, Llama 3, GPT-4o and
GPT-OSS (o200k), newer Mistral (Tekken), DeepSeek-V3 and BERT this follows from four facts:

1. Normalising. Characters of ``MARKS`` are starters (UAX #15) that compose with nothing
   before them and are their own NFC form, so NFC and BertNormalizer (NFD, marks removed,
   lower case of each character, spaces around ideographs; all local) work on both sides
   alone. A letter whose NFC form does not end in a letter (U+0958 becomes a letter and a
   mark) is no place to cut; no letter but the jamo composes with what precedes it, and a
   Hangul syllable is a letter.
2. Splitting. The patterns match from left to right and never look behind, so what follows
   a match boundary does not depend on what precedes it. A boundary stands at ``p``,
   because no alternative matches a letter or digit *followed by* a character of ``MARKS``:

   - a contraction, ``[^...]?\\p{L}+``, ``[!...][A-Za-z]+`` and ``[^...]?[\\p{L}\\p{M}]+`` end
     with their letters and marks, ``\\p{N}{1,3}`` with its digits;
   - the words of o200k and Tekken end where lower case turns to upper, and o200k's may take a
     contraction: however these alternatives backtrack, behind their leading character stand
     letters and marks, then perhaps ``'`` and letters, and nothing is looked ahead for;
   - `` ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*`` (and without ``/``) and
     `` ?[\\p{P}\\p{S}]+[\\r\\n]*`` match no letter or digit;
   - the white-space alternatives match neither; their look-ahead ``(?!\\S)`` sees one
     character behind a run of white space, and on the left of ``p`` such a run is followed
     by a character of the left side, which ends in none.

   Where several splits follow each other (DeepSeek-V3: digits by threes, then ideographs
   and kana, then words) the argument holds for each inside the pieces of the one before:
   ``MARKS`` is disjoint from digits and from U+3040-U+30FF, which hold punctuation such as
   U+30FB and the marks U+3099 and U+309A beside the letters. What the last split does not
   match becomes pieces too; a letter is always matched, and the first split isolates digits,
   so no such piece reaches over ``p``. BertPreTokenizer ends a word before every white-space
   and punctuation character.
3. Modelling. BPE and WordPiece see one word at a time.
4. Added tokens are found before all this, and can only bridge ``p`` when they hold its two
   characters. A character that follows a letter or digit inside any of them is taken out of
   ``MARKS``; tokens whose match depends on their surroundings (``single_word``, ``lstrip``,
   ``rstrip``), or on what the normaliser makes of them, leave no rule.

Letters are those of Unicode 3.2 that still are: all regular-expression engines agree on
them (U+1885 became a mark, U+10341 a number).
A pipeline that is not recognised gets no rule, and is tokenised in one piece.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Any

from longspan.server.text.cut_rule import CutRule
from longspan.server.text.merge_cuts import merge_cuts

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
_CASED_START = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_CASED_END = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (
    rf"{_CASED_START}*{_CASED_END}+{_CONTRACTIONS}?|{_CASED_START}+{_CASED_END}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_CASED_REST}"
)
TEKKEN = rf"{_CASED_START}*{_CASED_END}+|{_CASED_START}+{_CASED_END}*|\p{{N}}|{_CASED_REST}"
# Every character is part of a match of these.
_COMPLETE_SPLITS = frozenset({(QWEN2,), (LLAMA3,), (O200K,), (TEKKEN,)})
_KNOWN_SPLITS = _COMPLETE_SPLITS | {DEEPSEEK3}


@dataclass(frozen=True, slots=True)
class WordCuts(CutRule):
    """The safe cuts of a tokenizer that models one word at a time.

    Attributes:
        marks: characters before which a cut is safe, if a letter or digit stands there.
    """

    marks: frozenset[str]

    def is_safe(self, text: str, position: int) -> bool:
        """True when ``text`` may be cut before ``position``, which is at least 1."""
        return text[position] in self.marks and _ends_word(text[position - 1])


def cut_rule(tokenizer_json: str, *, tokens_are_text: bool = False) -> CutRule | None:
    """The rule for a serialised tokenizer; None when nothing is known about it.

    Args:
        tokenizer_json: as ``Tokenizer.to_str`` writes it.
        tokens_are_text: special tokens are never matched (``encode_special_tokens``).
    """
    spec = json.loads(tokenizer_json)
    if _is_byte_level_bpe(spec) or _is_bert(spec):
        return _word_cuts(spec.get("added_tokens") or [])
    return merge_cuts(spec, tokens_are_text=tokens_are_text)


def _word_cuts(added: list[dict[str, Any]]) -> WordCuts | None:
    if not all(_is_plain(token) for token in added):
        return None
    inside = {
        after
        for token in added
        for before, after in zip(token["content"], token["content"][1:], strict=False)
        if _ends_word(before)
    }
    return WordCuts(MARKS - inside)


def _is_plain(token: dict[str, Any]) -> bool:
    """True for a token that matches its own characters, wherever they stand."""
    if token["single_word"] or token["lstrip"] or token["rstrip"]:
        return False
    content = token["content"]
    return not token["normalized"] or (content.isascii() and not any(map(str.isspace, content)))


def _is_byte_level_bpe(spec: dict[str, Any]) -> bool:
    steps = _steps(spec.get("pre_tokenizer"), "pretokenizers")
    model = spec["model"]
    if model.get("type") != "BPE" or model.get("dropout") or not steps:
        return False
    *splits, last = steps
    patterns = tuple(split.get("pattern", {}).get("Regex") for split in splits)
    byte_level = (
        last["type"] == "ByteLevel"
        and not last.get("add_prefix_space", True)
        and not last.get("use_regex", True)
    )
    isolated = all(_isolates(split) for split in splits) and patterns in _KNOWN_SPLITS
    kept = all(_keeps_matches(split) for split in splits) and patterns in _COMPLETE_SPLITS
    return byte_level and (isolated or kept) and _only_nfc(spec)


def _isolates(split: dict[str, Any]) -> bool:
    return split["type"] == "Split" and split["behavior"] == "Isolated" and not split["invert"]


def _keeps_matches(split: dict[str, Any]) -> bool:
    """True for a split that drops what lies between the matches, which is nothing."""
    return split["type"] == "Split" and split["behavior"] == "Removed" and bool(split["invert"])


def _only_nfc(spec: dict[str, Any]) -> bool:
    steps = _steps(spec.get("normalizer"), "normalizers")
    return all(step["type"] == "NFC" for step in steps)


def _is_bert(spec: dict[str, Any]) -> bool:
    normalizer = spec.get("normalizer") or {}
    pre_tokenizer = spec.get("pre_tokenizer") or {}
    return (
        spec["model"].get("type") == "WordPiece"
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
    return _is_letter(character) and _is_letter(unicodedata.normalize("NFC", character)[-1])


def _is_letter(character: str) -> bool:
    return (
        unicodedata.ucd_3_2_0.category(character)[0] == "L"
        and unicodedata.category(character)[0] == "L"
    )
