"""Streaming gives the ids, text and offsets of one shot, however the bytes arrive."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from longspan.server.text.cuts import QWEN2
from longspan.server.text.tokeniser import StreamingTokeniser, load_tokenizer
from tests.support.data import shared_data
from tests.text.pipelines import NAMES, SHARED_NAMES, tokenizer_named, train
from tests.text.streaming import Tokenised, joined, one_shot, random_chunks, stream
from tests.text.texts import ALPHABET, HARD, documents, real_texts

DOCUMENTS = 125
SPLITS = int(os.environ.get("TEST_SPLITS", "375"))
"""Of each tokenizer."""


@pytest.mark.parametrize("name", NAMES)
def test_thousands_of_splits_give_the_tokens_of_one_shot(name: str) -> None:
    tokenizer, rng = tokenizer_named(name), random.Random(name)
    splits = cuts = 0
    for text in documents(DOCUMENTS, seed=1):
        expected, data = one_shot(tokenizer, text), text.encode()
        for _ in range(SPLITS // DOCUMENTS):
            tokeniser = StreamingTokeniser(
                tokenizer,
                with_offsets=True,
                least_chars=rng.choice((1, 30, 100)),
                piece_chars=rng.choice((10, 50, 300)),
            )
            pieces = stream(tokeniser, random_chunks(rng, data))
            assert joined(pieces).matches(expected), repr(text)
            splits += 1
            cuts += len(pieces) - 1
    assert splits >= SPLITS
    assert cuts >= 5 * splits


@pytest.mark.parametrize("name", NAMES)
def test_the_comparison_notices_a_cut_at_any_512th_character(name: str) -> None:
    tokenizer = tokenizer_named(name)
    wrong = 0
    for text in documents(40, seed=2):
        starts = range(0, len(text), 512)
        parts = [one_shot(tokenizer, text[at : at + 512]) for at in starts]
        careless = Tokenised(
            "".join(part.text for part in parts),
            np.concatenate([part.ids for part in parts]),
            np.concatenate([p.offsets + np.int32(at) for p, at in zip(parts, starts, strict=True)]),
        )
        wrong += not careless.matches(one_shot(tokenizer, text))
    assert wrong >= 10


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=150)
@given(parts=st.lists(st.sampled_from(ALPHABET) | st.text(max_size=3)), least=st.integers(1, 20))
def test_any_text_fed_in_any_parts_gives_the_tokens_of_one_shot(
    name: str, parts: list[str], least: int
) -> None:
    tokenizer = tokenizer_named(name)
    tokeniser = StreamingTokeniser(
        tokenizer, with_offsets=True, least_chars=least, piece_chars=least
    )
    pieces = [piece for part in parts for piece in tokeniser.feed(part)]
    assert joined([*pieces, *tokeniser.finish()]).matches(one_shot(tokenizer, "".join(parts)))


@pytest.mark.parametrize("name", NAMES)
def test_default_sizes_and_no_offsets_give_the_ids_of_one_shot(name: str) -> None:
    tokenizer, text = tokenizer_named(name), "\n".join((*HARD, *real_texts()[:4]))[:150_000]
    tokeniser = StreamingTokeniser(tokenizer)
    parts = [text[at : at + 9_000] for at in range(0, len(text), 9_000)]
    pieces = [piece for part in parts for piece in tokeniser.feed(part)]
    pieces += tokeniser.finish()
    assert len(pieces) >= len(parts) // 2
    assert all(piece.offsets is None for piece in pieces)
    ids = np.concatenate([piece.ids for piece in pieces])
    assert np.array_equal(ids, one_shot(tokenizer, text).ids)


def test_small_feeds_reach_the_tokenizer_in_large_pieces() -> None:
    tokeniser = StreamingTokeniser(tokenizer_named("trained qwen2"), least_chars=1000)
    text = "word after word " * 1000
    pieces = [piece for character in text for piece in tokeniser.feed(character)]
    assert 8 <= len(pieces) <= len(text) // 1000


def test_text_without_a_safe_cut_waits_and_stays_exact() -> None:
    tokenizer = tokenizer_named("trained qwen2")
    tokeniser = StreamingTokeniser(tokenizer, with_offsets=True, least_chars=50)
    text = "+/=" * 20_000
    fed = [piece for at in range(0, len(text), 7) for piece in tokeniser.feed(text[at : at + 7])]
    assert fed == []
    assert joined(tokeniser.finish()).matches(one_shot(tokenizer, text))


def test_an_unknown_pipeline_is_tokenised_at_the_end_and_exact() -> None:
    tokenizer = Tokenizer(models.Unigram([("▁a", -1.0), ("b", -2.0), ("▁", -3.0)], 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokeniser = StreamingTokeniser(tokenizer, with_offsets=True, least_chars=1)
    assert [tokeniser.feed(part) for part in ("a b", " a", " b a")] == [[], [], []]
    assert joined(tokeniser.finish()).matches(one_shot(tokenizer, "a b a b a"))


def test_an_empty_document_has_no_pieces() -> None:
    tokeniser = StreamingTokeniser(tokenizer_named("trained qwen2"))
    assert tokeniser.feed("") == []
    assert tokeniser.finish() == []


def test_documents_are_never_cut_off_or_padded(tmp_path: Path) -> None:
    text = "one two three four five"
    tokenizer = train((QWEN2,))
    expected = tokenizer.encode(text).ids
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str(), "utf-8")
    assert len(Tokenizer.from_file(str(path)).encode(text)) == 64
    assert load_tokenizer(path).encode(text).ids == expected


@pytest.mark.parametrize("name", NAMES)
def test_no_text_becomes_a_control_token(name: str) -> None:
    tokenizer = tokenizer_named(name)
    control = tokenizer.get_added_tokens_decoder()
    contents = [token.content for token in control.values()]
    texts = [form for token in contents for form in (token, f"a{token}b", f"{token} {token}")]
    assert len(texts) >= 9
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        assert not control.keys() & set(encoding.ids)


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_loading_changes_no_id_of_ordinary_text(name: str) -> None:
    raw = Tokenizer.from_file(str(shared_data("tokenizers", name, "tokenizer.json")))
    raw.no_truncation()
    raw.no_padding()
    ours = tokenizer_named(name)
    ordinary = [text for text in HARD if "<|" not in text]
    for text in (*ordinary, *(text[:5000] for text in real_texts())):
        assert one_shot(ours, text).matches(one_shot(raw, text))


@pytest.mark.parametrize("flag", ["normalized", "single_word", "lstrip", "rstrip"])
def test_tokens_of_any_kind_are_ordinary_text_and_do_not_hinder_the_cuts(
    flag: str, tmp_path: Path
) -> None:
    spec = json.loads(train((QWEN2,)).to_str())
    for token in spec["added_tokens"]:
        token.update({"special": False, flag: True})
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(spec), "utf-8")
    matching, ours = Tokenizer.from_file(str(path)), load_tokenizer(path)
    text = "say <|im_end|> or <｜User｜> now " * 20
    control = ours.get_added_tokens_decoder().keys()
    assert control & set(matching.encode(text).ids)
    assert not control & set(ours.encode(text).ids)
    fed = joined(StreamingTokeniser(ours, with_offsets=True, least_chars=50).feed(text))
    assert len(fed.text) > len(text) // 2
    assert fed.matches(one_shot(ours, fed.text))
