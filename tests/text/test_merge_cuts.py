"""Cuts where BPE merges over the whole text: none is crossed, and all follow from the merges."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from longspan.server.text.cut_rule import CutRule
from longspan.server.text.cuts import cut_rule
from longspan.server.text.merge_cuts import MergeCuts
from longspan.server.text.tokeniser import StreamingTokeniser
from tests.text.corpus import ALPHABET as CHARACTERS
from tests.text.corpus import OWN, adversarial, long_texts
from tests.text.merge_families import (
    FAMILIES,
    IDLE_SPLIT,
    LEGACY,
    MERGING,
    PIPELINES,
    PREPEND,
    REPLACE,
    family,
    metaspace,
    sentencepiece,
)
from tests.text.streaming import Tokenised, joined, one_shot, random_chunks, stream

STRINGS = 300
SPLITS = 800
KIB_64 = 64 << 10
ALPHABET = (*CHARACTERS, "▁", "▁▁", " ", "   ", "\n\n", "<0x0A>", "<unk>", "</s>", "of the ")


def rule_of(tokenizer: Tokenizer) -> CutRule:
    rule = cut_rule(tokenizer.to_str(), tokens_are_text=True)
    assert rule is not None
    return rule


def hard_text(chance: random.Random) -> str:
    """Adversarial stretches, spaces, newlines and sentences in any order."""
    sources = [*OWN.values(), long_texts()[0][:50_000]]
    parts = []
    for _ in range(chance.randint(1, 6)):
        source = chance.choice(sources)
        start = chance.randrange(len(source))
        parts += [source[start : start + chance.randint(1, 80)], chance.choice(ALPHABET)]
        parts.append(chance.choice(("", adversarial(chance), " " * chance.randint(1, 40))))
    return "".join(parts)


def put_together(tokenizer: Tokenizer, rule: CutRule, text: str, cut: int) -> Tokenised:
    """Both sides of a cut, as a naive streaming tokeniser would give them."""
    left = one_shot(tokenizer, text[:cut])
    right = one_shot(rule.continuation(tokenizer), text[cut:])
    offsets = np.concatenate([left.offsets, right.offsets + np.int32(cut)])
    return Tokenised(text, np.concatenate([left.ids, right.ids]), offsets)


@pytest.mark.parametrize("name", MERGING)
def test_each_safe_cut_of_hard_texts_is_safe(name: str) -> None:
    """Ids and offsets of both sides are those of the whole at thousands of places."""
    tokenizer, chance, cuts = family(name), random.Random(name), 0
    rule = rule_of(tokenizer)
    for text in (hard_text(chance) for _ in range(STRINGS)):
        whole = one_shot(tokenizer, text)
        safe = [cut for cut in range(1, len(text)) if rule.is_safe(text, cut)]
        for cut in chance.sample(safe, min(len(safe), 12)):
            assert put_together(tokenizer, rule, text, cut).matches(whole), (text, cut)
            cuts += 1
    assert cuts > 5 * STRINGS


@pytest.mark.parametrize("name", FAMILIES)
def test_thousands_of_splits_give_the_tokens_of_one_shot(name: str) -> None:
    """However the bytes arrive, ids and offsets are those of one shot."""
    tokenizer, chance, pieces_seen = family(name), random.Random(name), 0
    for _ in range(SPLITS // 10):
        text = hard_text(chance)
        expected, data = one_shot(tokenizer, text), text.encode()
        for _ in range(10):
            tokeniser = StreamingTokeniser(
                tokenizer,
                with_offsets=True,
                least_chars=chance.choice((1, 30, 100)),
                piece_chars=chance.choice((10, 50, 300)),
            )
            pieces = stream(tokeniser, random_chunks(chance, data))
            assert joined(pieces).matches(expected), repr(text)
            pieces_seen += len(pieces)
    assert pieces_seen > 3 * SPLITS


@pytest.mark.parametrize("name", MERGING)
@settings(deadline=None, max_examples=20)
@given(parts=st.lists(st.sampled_from(ALPHABET) | st.text(max_size=3)), least=st.integers(1, 20))
def test_any_text_in_any_parts_gives_the_tokens_of_one_shot(
    name: str, parts: list[str], least: int
) -> None:
    """The same for any Unicode text, pieces as short as can be."""
    tokenizer = family(name)
    tokeniser = StreamingTokeniser(
        tokenizer, with_offsets=True, least_chars=least, piece_chars=least
    )
    pieces = [piece for part in parts for piece in tokeniser.feed(part)]
    assert joined([*pieces, *tokeniser.finish()]).matches(one_shot(tokenizer, "".join(parts)))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("text", ["", " ", "   ", "  two spaces", "▁low line", "\n\n x", "a", "é "])
def test_the_start_of_a_text_is_that_of_one_shot(name: str, text: str) -> None:
    """Whatever is put before a text, once and no more, is put before its first piece."""
    tokenizer = family(name)
    tokeniser = StreamingTokeniser(tokenizer, with_offsets=True, least_chars=1, piece_chars=1)
    pieces = [piece for character in text + text for piece in tokeniser.feed(character)]
    pieces += tokeniser.finish()
    assert joined(pieces).matches(one_shot(tokenizer, text + text))


@dataclass(frozen=True)
class Anywhere(CutRule):
    """A wrong rule: every place is safe."""

    right: CutRule

    def is_safe(self, text: str, position: int) -> bool:
        return True

    def continuation(self, tokenizer: Tokenizer) -> Tokenizer:
        return self.right.continuation(tokenizer)


@dataclass(frozen=True)
class SameTokenizer(CutRule):
    """A wrong rule: the right places, but each piece is tokenised as the start of a text."""

    right: CutRule

    def is_safe(self, text: str, position: int) -> bool:
        return self.right.is_safe(text, position)


class BeforeSpaces(Anywhere):
    """A wrong rule for a vocabulary with tokens that reach over spaces."""

    def is_safe(self, text: str, position: int) -> bool:
        return text[position] == " " != text[position - 1]


def wrong_texts(tokenizer: Tokenizer, rule: CutRule) -> int:
    """How many of 30 texts a rule gets wrong at some of its cuts."""
    chance, wrong = random.Random(5), 0
    for text in (hard_text(chance) for _ in range(30)):
        whole = one_shot(tokenizer, text)
        safe = [cut for cut in range(1, len(text)) if rule.is_safe(text, cut)]
        cuts = chance.sample(safe, min(len(safe), 12))
        wrong += not all(put_together(tokenizer, rule, text, cut).matches(whole) for cut in cuts)
    return wrong


MUTANTS: list[tuple[str, Callable[[CutRule], CutRule]]] = [
    *((name, Anywhere) for name in FAMILIES),
    ("llama2", SameTokenizer),
    ("stories260K", SameTokenizer),
    ("mistral", SameTokenizer),
    ("metaspace always", SameTokenizer),
    ("merges over spaces", BeforeSpaces),
]


@pytest.mark.parametrize(("name", "mutant"), MUTANTS)
def test_the_comparison_notices_a_wrong_rule(
    name: str, mutant: Callable[[CutRule], CutRule]
) -> None:
    """Cutting anywhere, repeating the first space or trusting every space gives other tokens."""
    tokenizer = family(name)
    rule = rule_of(tokenizer)
    assert wrong_texts(tokenizer, mutant(rule)) >= 10
    assert wrong_texts(tokenizer, rule) == 0


@pytest.mark.parametrize("name", MERGING)
def test_a_cut_is_safe_exactly_where_no_merge_bridges_it(name: str) -> None:
    """The rule's pairs are those of a plain search through all merges."""
    tokenizer = family(name)
    model, rule = json.loads(tokenizer.to_str())["model"], rule_of(tokenizer)
    assert isinstance(rule, MergeCuts)
    if rule.split:
        assert [rule.is_safe(pair, 1) for pair in ("a ", "a▁", "  ", "ab")] == [True] * 3 + [False]
        return
    letters = random.Random(3).sample([n for n in model["vocab"] if len(n) == 1], 40)
    for before in letters:
        for after in letters:
            merged = any(a.endswith(before) and b.startswith(after) for a, b in model["merges"])
            assert rule.is_safe(before + after, 1) is not merged


@pytest.mark.parametrize("name", FAMILIES)
def test_english_prose_can_be_cut_in_each_64_kib(name: str) -> None:
    """Every 64 KiB fed give tokens at once, all but a few characters."""
    tokenizer, text = family(name), "".join(long_texts()[:3])[: 4 * KIB_64]
    tokeniser, done = StreamingTokeniser(tokenizer), 0
    for at in range(0, len(text), KIB_64):
        fed = text[at : at + KIB_64]
        done += sum(len(piece.text) for piece in tokeniser.feed(fed))
        assert at + len(fed) - done < 200


@pytest.mark.parametrize("name", ["llama2", "mistral", "gemma", "gpt oss", "tekken"])
def test_chinese_and_code_can_be_cut(name: str) -> None:
    """Text without spaces is not kept to the end either."""
    for text in (OWN["chinese"] * 40, OWN["code"] * 40):
        pieces = StreamingTokeniser(family(name), least_chars=100).feed(text)
        assert sum(len(piece.text) for piece in pieces) > len(text) - 100


def changed(name: str, **changes: Any) -> dict[str, Any]:
    spec = sentencepiece(*PIPELINES[name])
    spec["model"] |= changes.pop("model", {})
    return {**spec, **changes}


def unknown() -> Iterator[tuple[str, dict[str, Any]]]:
    yield (
        "a whole text may be found in the vocabulary",
        changed("llama2", model={"ignore_merges": True}),
    )
    yield "dropout", changed("llama2", model={"dropout": 0.1})
    yield "a prefix of parts", changed("llama2", model={"continuing_subword_prefix": "##"})
    yield "a suffix of words", changed("llama2", model={"end_of_word_suffix": "</w>"})
    yield (
        "another order",
        changed("llama2", normalizer={"type": "Sequence", "normalizers": [REPLACE, PREPEND]}),
    )
    yield "another normaliser", changed("llama2", normalizer={"type": "NFKC"})
    yield "another split", changed("gemma", pre_tokenizer={**IDLE_SPLIT, "invert": True})
    yield "two ways at once", changed("llama2", pre_tokenizer=metaspace("first"))
    yield "spaces stay spaces", changed("llama2", normalizer=None)
    yield (
        "another sign for spaces",
        changed("mistral", pre_tokenizer={**metaspace("first"), "replacement": "_"}),
    )
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁", -1.0]]}
    yield "Unigram", {**changed("mistral"), "model": unigram}


@pytest.mark.parametrize(("reason", "spec"), list(unknown()))
def test_what_is_not_recognised_has_no_rule(reason: str, spec: dict[str, Any]) -> None:
    """Nothing is said about a pipeline that the proof does not cover."""
    assert cut_rule(json.dumps(spec), tokens_are_text=True) is None, reason


def test_tokens_that_are_matched_in_the_text_leave_no_rule() -> None:
    """Each stretch behind a matched token would begin with a space of its own."""
    spec = changed("llama2")
    assert cut_rule(json.dumps(spec), tokens_are_text=True) is not None
    assert cut_rule(json.dumps(spec)) is None
    spec["added_tokens"][0]["special"] = False
    assert cut_rule(json.dumps(spec), tokens_are_text=True) is None
    assert cut_rule(json.dumps({**spec, "added_tokens": []})) is not None


def test_characters_that_may_vanish_are_no_place_to_cut() -> None:
    """Without byte tokens and unknown token, the neighbours of such a character meet."""
    model = {"unk_token": None, "byte_fallback": False}
    spec = changed("no bytes", normalizer=LEGACY, model=model)
    rule = cut_rule(json.dumps(spec), tokens_are_text=True)
    assert rule is not None
    assert rule.is_safe("a ", 1)
    assert not rule.is_safe("\U0010ffff ", 1)
