"""Every cut that the rule calls safe is safe; what is not known to be safe has no rule."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from longspan.server.text.cuts import (
    DEEPSEEK3,
    LLAMA3,
    MARKS,
    O200K,
    QWEN2,
    TEKKEN,
    WordCuts,
    cut_rule,
)
from tests.text.corpus import ALPHABET, OWN, adversarial
from tests.text.families import FAMILIES, SMALL, matching_tokenizer, tokenizer_of

STRINGS = 2_000
SEED = 20261124
EVERYTHING = WordCuts(MARKS)


def safe_cuts(rule: WordCuts, text: str) -> Iterator[int]:
    return (position for position in range(1, len(text)) if rule.is_safe(text, position))


def ids_of(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    batch = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [encoding.ids for encoding in batch]


def check_cuts(tokenizer: Tokenizer, rule: WordCuts, texts: Sequence[str]) -> int:
    """Compare the whole with its two sides at each safe cut; return how many there were."""
    cuts = [(text, position) for text in texts for position in safe_cuts(rule, text)]
    whole = ids_of(tokenizer, [text for text, _ in cuts])
    left = ids_of(tokenizer, [text[:position] for text, position in cuts])
    right = ids_of(tokenizer, [text[position:] for text, position in cuts])
    for cut, ids, before, after in zip(cuts, whole, left, right, strict=True):
        assert ids == before + after, cut
    return len(cuts)


def rule_of(tokenizer: Tokenizer) -> WordCuts:
    rule = cut_rule(tokenizer.to_str())
    assert isinstance(rule, WordCuts)
    return rule


@pytest.mark.parametrize("name", FAMILIES)
def test_each_safe_cut_of_adversarial_strings_is_safe(name: str) -> None:
    tokenizer, chance = tokenizer_of(name), random.Random(SEED)
    texts = [adversarial(chance) for _ in range(STRINGS)]
    assert check_cuts(tokenizer, rule_of(tokenizer), [*texts, *OWN.values()]) > STRINGS


@pytest.mark.parametrize("name", [*SMALL, "qwen", "packaged_minilm"])
def test_the_rule_holds_where_token_texts_are_taken_for_tokens(name: str) -> None:
    tokenizer, chance = matching_tokenizer(name), random.Random(SEED + 1)
    texts = [adversarial(chance) for _ in range(STRINGS)]
    assert check_cuts(tokenizer, rule_of(tokenizer), texts) > STRINGS


@pytest.mark.parametrize("name", ["small_qwen2", "small_deepseek3", "packaged_minilm"])
@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.one_of(st.sampled_from(ALPHABET), st.characters(codec="utf-8"))))
def test_each_safe_cut_of_any_text_is_safe(name: str, parts: list[str]) -> None:
    check_cuts(tokenizer_of(name), EVERYTHING, ["".join(parts)])


@pytest.mark.parametrize("name", FAMILIES)
def test_no_letter_and_mark_of_unicode_stay_together(name: str) -> None:
    """Every character that may stand before a cut, before two of the marks.

    Words stand between them so that each has the same surroundings in one long text.
    """
    tokenizer, chance = tokenizer_of(name), random.Random(SEED)
    letters = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if EVERYTHING.is_safe(character + " ", 1)
    ]
    assert len(letters) > 80_000
    ideographs = [letter for letter in letters if letter >= "㐀"]
    tried = [letter for letter in letters if letter < "㐀"] + chance.sample(ideographs, 3000)
    marks = sorted(MARKS)
    texts = [f"a{letter}{chance.choice(marks)}\nb" for letter in tried]
    assert check_cuts(tokenizer, EVERYTHING, texts) >= len(tried)


# Cuts that look harmless and are not; none may be called safe.
COUNTER_EXAMPLES = [
    ("\u0958 x", 1, "its NFC form ends in a mark"),
    ("\u1885 x", 1, "was a letter, became a mark"),
    ("\U00010341 x", 1, "was a letter, became a number"),
    ("カ・x", 1, "U+30FB belongs to the run of kana"),
    ("カ゛x", 1, "U+309B belongs to the run of kana"),
    ("e\u0301 x", 2, "a mark may be part of a run of punctuation"),
    ("a's", 1, "a contraction"),
    ("1 2", 2, "white space takes the following word"),
    ("a \n", 2, "a run of white space"),
    (".\r\n", 1, "punctuation takes the line ends"),
    ("½ x", 1, "a numeral that is no ASCII digit"),
    ("x\u00a0y", 1, "white space outside the marks"),
    ("x\u0085y", 1, "white space outside the marks"),
]


@pytest.mark.parametrize(("text", "position", "reason"), COUNTER_EXAMPLES)
def test_a_doubtful_cut_is_not_called_safe(text: str, position: int, reason: str) -> None:
    assert not EVERYTHING.is_safe(text, position), reason


@settings(deadline=None)
@given(text=st.lists(st.sampled_from(ALPHABET)).map("".join), start=st.integers(1, 9))
def test_the_first_and_last_cut_are_those_of_a_plain_search(text: str, start: int) -> None:
    cuts = [position for position in safe_cuts(EVERYTHING, text) if position >= start]
    assert EVERYTHING.first(text, start) == (cuts[0] if cuts else None)
    assert EVERYTHING.last(text, start, len(text)) == (cuts[-1] if cuts else None)


def byte_level(*patterns: str, behaviour: str = "isolated") -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    splits = [pre_tokenizers.Split(Regex(pattern), behaviour) for pattern in patterns]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, last])
    return tokenizer


@pytest.mark.parametrize("patterns", [(QWEN2,), (LLAMA3,), (O200K,), (TEKKEN,), DEEPSEEK3])
def test_the_known_pipelines_have_a_rule(patterns: tuple[str, ...]) -> None:
    assert rule_of(byte_level(*patterns)) == EVERYTHING


def bert() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def unknown() -> Iterator[tuple[str, Tokenizer]]:
    yield "another pattern", byte_level(QWEN2.replace("{N}", "{N}+"))
    yield "another order", byte_level(*reversed(DEEPSEEK3))
    yield "another behaviour", byte_level(QWEN2, behaviour="merged_with_next")
    yield "no split", byte_level()
    tokenizer = byte_level(QWEN2)
    tokenizer.normalizer = normalizers.NFKC()
    yield "another normaliser", tokenizer
    tokenizer = byte_level(QWEN2)
    tokenizer.model = models.BPE(dropout=0.1)
    yield "dropout", tokenizer
    tokenizer = byte_level(QWEN2)
    tokenizer.model = models.Unigram()
    yield "another model", tokenizer
    tokenizer = bert()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    yield "another pre-tokenizer", tokenizer
    yield "nothing at all", Tokenizer(models.BPE())
    for option in ("single_word", "lstrip", "rstrip"):
        tokenizer = bert()
        tokenizer.add_tokens([AddedToken("word", **{option: True})])
        yield f"an added token with {option}", tokenizer
    tokenizer = bert()
    tokenizer.add_tokens([AddedToken("a\u00a0b", normalized=True)])
    yield "an added token that is normalised to another", tokenizer


@pytest.mark.parametrize(("reason", "tokenizer"), list(unknown()))
def test_what_is_not_recognised_has_no_rule(reason: str, tokenizer: Tokenizer) -> None:
    assert cut_rule(tokenizer.to_str()) is None, reason


def test_a_mark_inside_an_added_token_is_no_mark() -> None:
    tokenizer = byte_level(QWEN2)
    tokenizer.add_special_tokens([AddedToken("<end of，text>", normalized=False)])
    assert rule_of(tokenizer).marks == MARKS - {" ", "，"}


def test_a_file_without_some_defaults_is_read_like_one_with_them() -> None:
    spec = json.loads(byte_level(QWEN2).to_str())
    del spec["added_tokens"], spec["normalizer"]
    assert cut_rule(json.dumps(spec)) == EVERYTHING
    del spec["pre_tokenizer"]["pretokenizers"][-1]["use_regex"]
    assert cut_rule(json.dumps(spec)) is None
