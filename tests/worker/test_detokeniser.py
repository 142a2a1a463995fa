"""Streaming detokenisation, against decoding everything at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from longspan.worker.failures import StartFailure
from longspan.worker.sampling.detokeniser import Detokeniser
from longspan.worker.sampling.pieces import Pieces
from tests.support.data import shared_data

BYTE_LEVEL = ("qwen", "deepseek_v3", "small bytes")
SENTENCEPIECE = ("stories260K", "small llama", "small gemma")
TEXTS = st.text(st.sampled_from("ab ,\n\té漢字🙂👩‍👩‍👧🇩🇪ह्नि\u0301Ω"), max_size=30)


@lru_cache(maxsize=8)
def tokenizer_named(name: str) -> Tokenizer:
    """A real tokenizer, or a small one of the same kind; skips the test where it is absent."""
    if name == "stories260K":
        return Tokenizer.from_file(str(shared_data("models", name, "hf", "tokenizer.json")))
    if name == "small bytes":
        return small_byte_level()
    if name == "small llama":
        return small_sentencepiece(decoders.Strip(" ", 1, 0))
    if name == "small gemma":
        return small_sentencepiece()
    return Tokenizer.from_file(str(shared_data("tokenizers", name, "tokenizer.json")))


@lru_cache(maxsize=8)
def pieces_of(name: str) -> Pieces:
    """The pieces of a tokenizer."""
    return Pieces(tokenizer_named(name))


def small_byte_level() -> Tokenizer:
    """Every byte is a token; some added tokens are special and some are text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: token for token, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.add_tokens([AddedToken(text) for text in ("<think>", "<｜User｜>", "two words")])
    return tokenizer


def small_sentencepiece(*last: decoders.Decoder) -> Tokenizer:
    """Byte tokens, a few words, special tokens, and the decoder of such models."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁▁", "▁a", "b", "é", "字"]
    vocabulary = {word: token for token, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *last]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def streamed(pieces: Pieces, tokens: Iterable[int]) -> str:
    """The text of all pushes and the end."""
    detokeniser = Detokeniser(pieces)
    shown = [detokeniser.push(token) for token in tokens]
    return "".join([*shown, detokeniser.finish()])


def tokens_below(name: str) -> st.SearchStrategy[list[int]]:
    """Any ids, with some that are no tokens; split characters are the rule, not the exception."""
    size = tokenizer_named(name).get_vocab_size()
    edges = st.integers(max(0, size - 20), size + 5)
    return st.lists(st.one_of(st.integers(0, 280), st.integers(0, size + 5), edges), max_size=30)


def mixed(name: str, data: st.DataObject) -> list[int]:
    """Tokens of texts between random tokens."""
    parts = data.draw(st.lists(st.one_of(TEXTS, tokens_below(name)), max_size=5))
    tokenizer = tokenizer_named(name)
    return [
        token
        for part in parts
        for token in (tokenizer.encode(part).ids if isinstance(part, str) else part)
    ]


@pytest.mark.parametrize("name", BYTE_LEVEL)
@settings(deadline=None)
@given(data=st.data())
def test_byte_level_text_is_that_of_the_full_decoder(name: str, data: st.DataObject) -> None:
    """Any tokens, also ones that split or break characters, special ones and unknown ones."""
    tokens = mixed(name, data)
    expected = tokenizer_named(name).decode(tokens, skip_special_tokens=True)
    assert streamed(pieces_of(name), tokens) == expected


@pytest.mark.parametrize("name", SENTENCEPIECE)
@settings(deadline=None)
@given(data=st.data())
def test_byte_fallback_text_is_that_of_the_full_decoder(name: str, data: st.DataObject) -> None:
    """Any tokens whose runs of byte tokens are characters, or none of them are."""
    tokenizer, pieces = tokenizer_named(name), pieces_of(name)
    tokens = [t for t, _ in runs_of_one_kind(pieces, mixed(name, data))]
    assert streamed(pieces, tokens) == tokenizer.decode(tokens, skip_special_tokens=True)


def runs_of_one_kind(pieces: Pieces, tokens: Sequence[int]) -> list[tuple[int, bool]]:
    """The tokens without byte tokens that make a run partly characters and partly not."""
    kept: list[tuple[int, bool]] = []
    run: list[tuple[int, bool]] = []
    for token in [*tokens, None]:
        piece = "end" if token is None else pieces.piece(token)
        if token is not None and not isinstance(piece, str):
            run.append((token, True))
            continue
        data = b"".join(p for t, _ in run if isinstance(p := pieces.piece(t), bytes))
        text = data.decode(errors="surrogateescape")
        broken = [0xDC80 <= ord(character) <= 0xDCFF for character in text]
        kept += run if all(broken) or not any(broken) else []
        run = []
        if token is not None:
            kept.append((token, False))
    return kept


@pytest.mark.parametrize("name", SENTENCEPIECE)
@settings(deadline=None)
@given(data=st.data())
def test_byte_fallback_shows_every_good_character(name: str, data: st.DataObject) -> None:
    """Any tokens at all: each byte that forms no character becomes one U+FFFD."""
    pieces = pieces_of(name)
    tokens = mixed(name, data)
    known = [p for token in tokens if (p := pieces.piece(token)) is not None]
    whole = b"".join(p if isinstance(p, bytes) else b"\xff<" + p.encode() + b">" for p in known)
    text = "".join(
        "\ufffd" if 0xDC80 <= ord(character) <= 0xDCFF else character
        for character in whole.decode(errors="surrogateescape")
    )
    for piece in known:
        if isinstance(piece, str):
            text = text.replace(f"\ufffd<{piece}>", piece, 1)
    stripped = pieces.leading_spaces and text.startswith(" ")
    assert streamed(pieces, tokens) == (text[1:] if stripped else text)


@pytest.mark.parametrize("scheme", ["always", "never"])
@settings(deadline=None)
@given(tokens=st.lists(st.integers(0, 5), max_size=8))
def test_metaspace_text_is_that_of_the_full_decoder(scheme: str, tokens: list[int]) -> None:
    """The first token loses its spaces where the scheme has put them there."""
    words = ["▁", "▁▁a", "b", "▁c", "d▁e"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "b"))
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    tokenizer.add_special_tokens(["<s>"])
    expected = tokenizer.decode(tokens, skip_special_tokens=True)
    assert streamed(Pieces(tokenizer), tokens) == expected


def test_a_character_is_shown_whole_and_at_once() -> None:
    """Its bytes wait for the last of them, and nothing else does."""
    tokenizer = small_byte_level()
    detokeniser = Detokeniser(Pieces(tokenizer))
    shown = [detokeniser.push(token) for token in tokenizer.encode("a🙂é").ids]
    assert shown == ["a", "", "", "", "🙂", "", "é"]
    llama = tokenizer_named("small llama")
    detokeniser = Detokeniser(pieces_of("small llama"))
    names = ["▁a", "<0xE2>", "</s>", "<0x82>", "<0xAC>", "<0x0A>", "<0xE2>", "b"]
    shown = [detokeniser.push(llama.get_vocab()[name]) for name in names]
    assert shown == ["a", "", "", "", "€", "\n", "", "\ufffdb"]
    assert detokeniser.finish() == ""


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        decoders.WordPiece(),
        decoders.Sequence([decoders.Fuse(), decoders.CTC()]),
        decoders.Strip("_", 1, 0),
        decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 1)]),
    ],
)
def test_a_decoder_that_cannot_be_streamed_is_refused(decoder: decoders.Decoder | None) -> None:
    """A worker says so when it starts, not with a wrong text."""
    tokenizer = Tokenizer(models.BPE({"a": 0}, []))
    if decoder is not None:
        tokenizer.decoder = decoder
    with pytest.raises(StartFailure, match="decoder is not supported"):
        Pieces(tokenizer)
