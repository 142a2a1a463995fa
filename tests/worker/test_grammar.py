"""Texts that are held to a grammar."""

from __future__ import annotations

import json
import re
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from longspan.worker.failures import StartFailure
from longspan.worker.sampling.grammar import Constraint, Grammars
from longspan.worker.sampling.grammar_source import BadGrammar
from longspan.worker.sampling.params import GrammarKind, GrammarSpec
from tests.support.data import shared_data

VOCABULARY = 320
STOP = 256
"""The first added token; the others are text, and the last ids are padding of the embedding."""
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 4},
            "ages": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
        },
        "required": ["name", "ages"],
        "additionalProperties": False,
    }
)


@lru_cache(maxsize=1)
def byte_tokenizer() -> Tokenizer:
    """A token for every byte, a stop token, and a few longer tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: token for token, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.add_tokens([AddedToken(text) for text in ("</think>", '>\n{"', ">!", "\n\n")])
    tokenizer.add_special_tokens(["<|message|>"])
    return tokenizer


@lru_cache(maxsize=1)
def grammars() -> Grammars:
    """Of the tokenizer above."""
    return Grammars(byte_tokenizer(), VOCABULARY, [STOP])


def json_schema(source: str, begins_after: str = "") -> GrammarSpec:
    """A JSON schema."""
    return GrammarSpec(GrammarKind.JSON_SCHEMA, source, begins_after)


def regex(source: str, begins_after: str = "") -> GrammarSpec:
    """A regular expression."""
    return GrammarSpec(GrammarKind.REGEX, source, begins_after)


def allowed(constraint: Constraint) -> list[int]:
    """The tokens of a mask."""
    bits = np.unpackbits(constraint.mask().numpy().view(np.uint8), bitorder="little")
    return np.flatnonzero(bits).tolist()


def accept_text(constraint: Constraint, text: str) -> None:
    """Accept a text's tokens."""
    for token in byte_tokenizer().encode(text).ids:
        constraint.accept(token)


def generate(constraint: Constraint, data: st.DataObject, most: int = 400) -> list[int]:
    """Any walk through the masks, to the end; the stop token is taken when it is drawn."""
    tokens: list[int] = []
    while not constraint.finished and len(tokens) < most:
        choices = allowed(constraint)
        token = data.draw(st.sampled_from(choices))
        if token == STOP:
            break
        constraint.accept(token)
        tokens.append(token)
    return tokens


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_walk_through_a_regex_matches_it(data: st.DataObject) -> None:
    """Whatever the masks allow, the finished text matches the expression."""
    source = r"(yes|no): [a-f]{2,5}( é+)?"
    tokens = generate(grammars().compile(regex(source)), data)
    text = byte_tokenizer().decode(tokens)
    assert len(tokens) == 400 or re.fullmatch(source, text)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_walk_through_a_schema_is_such_json(data: st.DataObject) -> None:
    """Whatever the masks allow, a finished text is JSON of the schema."""
    constraint = grammars().compile(json_schema(SCHEMA))
    tokens = generate(constraint, data)
    if constraint.finished:
        value = json.loads(byte_tokenizer().decode(tokens))
        assert set(value) == {"name", "ages"}
        assert len(value["name"]) <= 4
        assert 1 <= len(value["ages"]) <= 3
        assert all(isinstance(age, int) for age in value["ages"])


@pytest.mark.parametrize("begins_after", ["", "</think>"])
@pytest.mark.parametrize("schema", ["true", " true\n", "{}", '{"properties": {"a": true}}'])
def test_a_schema_may_be_true(schema: str, begins_after: str) -> None:
    """It stands for any JSON, alone or inside another."""
    constraint = grammars().compile(json_schema(schema, begins_after))
    accept_text(constraint, begins_after + '{"a": [1, null, "x"], "b": {}}')
    assert constraint.finished
    with pytest.raises(BadGrammar):
        accept_text(grammars().compile(json_schema(schema)), "no JSON")


def test_a_complete_text_is_finished_or_may_stop() -> None:
    """A schema's object ends by itself; what could go on allows the stop token as well."""
    constraint = grammars().compile(json_schema(SCHEMA))
    accept_text(constraint, '{"name": "x", "ages": [1, 23]')
    assert STOP not in allowed(constraint)
    assert not constraint.finished
    accept_text(constraint, "}")
    assert constraint.finished
    word = grammars().compile(regex("[a-z]+"))
    assert STOP not in allowed(word)
    accept_text(word, "abc")
    assert STOP in allowed(word)
    assert not word.finished


def test_masks_name_only_tokens_of_the_vocabulary() -> None:
    """Padding of the embedding is never allowed; the mask covers it."""
    constraint = grammars().compile(regex("(?s:.*)"))
    assert len(constraint.mask()) * 32 >= VOCABULARY
    assert max(allowed(constraint)) < byte_tokenizer().get_vocab_size()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (json_schema('{"type": "bogus"}'), "Invalid type: bogus"),
        (json_schema('{"$ref": "#/nowhere"}'), "'/nowhere' does not exist"),
        (json_schema('{"not": {}}'), "Unimplemented keys"),
        (json_schema('{"type": "string", "pattern": "("}'), "unclosed group"),
        (json_schema('{"minLength": 5, "maxLength": 2, "type": "string"}'), "Unsatisfiable"),
        (json_schema("not json"), "expected"),
        (json_schema("[]"), "object"),
        (json_schema("[" * 100_000), "recursion"),
        (json_schema('{"type": "bogus"}', "</think>"), "Invalid type: bogus"),
        (regex("("), "unclosed group"),
        (regex("(?=a)b"), "look-around"),
        (regex("(", "</think>"), "unclosed group"),
    ],
)
def test_a_grammar_that_does_not_compile_is_refused(spec: GrammarSpec, message: str) -> None:
    """The error is llguidance's own."""
    with pytest.raises(BadGrammar, match=re.escape(message)):
        grammars().compile(spec)


def test_a_token_that_the_grammar_does_not_allow_is_refused() -> None:
    """A replay of tokens that another grammar allowed ends with an error."""
    constraint = grammars().compile(regex("a+"))
    with pytest.raises(BadGrammar, match="grammar"):
        accept_text(constraint, "ab")


@pytest.mark.parametrize(
    "reasoning",
    ["</think>", "I think: </th </think></think>"[:-8], "a <\n<</think>", "é🙂</think>"],
)
@pytest.mark.parametrize("blank", ["", "\n\n", " \n "])
def test_a_grammar_begins_after_a_text(reasoning: str, blank: str) -> None:
    """Everything but the stop token is free before; white space may stand between."""
    constraint = grammars().compile(json_schema(SCHEMA, "</think>"))
    tokens = byte_tokenizer().encode(reasoning).ids
    for token in tokens:
        assert set(range(VOCABULARY)) - set(allowed(constraint)) == {STOP}
        constraint.accept(token)
    accept_text(constraint, blank)
    answer = '{"name":"é","ages":[7]}'
    for token in byte_tokenizer().encode(answer).ids:
        assert not constraint.finished
        assert token in allowed(constraint)
        assert STOP not in allowed(constraint)
        constraint.accept(token)
    assert constraint.finished


def test_the_awaited_text_may_be_spread_over_tokens() -> None:
    """What follows it in the token that completes it is governed already."""
    tokens = byte_tokenizer().get_vocab()
    constraint = grammars().compile(json_schema(SCHEMA, "</think>"))
    for character in "so</think":
        constraint.accept(tokens[character])
    constraint.accept(tokens['>\n{"'])
    assert allowed(constraint) == [tokens["n"]]
    refused = grammars().compile(json_schema(SCHEMA, "</think>"))
    for character in "</think":
        refused.accept(tokens[character])
    with pytest.raises(BadGrammar):
        refused.accept(tokens[">!"])


@settings(deadline=None)
@given(st.text("ab<", max_size=30), st.text("ab<", min_size=1, max_size=4))
def test_the_awaited_text_is_found_where_it_first_stands(text: str, awaited: str) -> None:
    """The grammar governs what follows its first appearance, and nothing else."""
    constraint = grammars().compile(regex("[ab<]*!", awaited))
    accept_text(constraint, text)
    free = STOP - 1 in allowed(constraint)
    assert free == (awaited not in text)


def test_real_tokenizers_are_constrained() -> None:
    """A padded vocabulary of 151,936, and a sentencepiece model with byte fallback."""
    for parts, vocabulary, stop in (
        (("tokenizers", "qwen"), 151_936, 151_645),
        (("models", "stories260K", "hf"), 512, 2),
    ):
        tokenizer = Tokenizer.from_file(str(shared_data(*parts, "tokenizer.json")))
        constraint = Grammars(tokenizer, vocabulary, [stop]).compile(regex("(yes|no), .+"))
        assert constraint.mask().dtype == torch.int32
        assert len(constraint.mask()) * 32 >= vocabulary
        tokens: list[int] = []
        while len(tokens) < 12:
            tokens.append(max(token for token in allowed(constraint) if token != stop))
            constraint.accept(tokens[-1])
        assert re.match("(yes|no), ", tokenizer.decode(tokens).lstrip())
        assert stop in allowed(constraint)


def test_a_tokenizer_that_cannot_be_constrained_fails_the_start() -> None:
    """One line says what is wrong with it."""
    with pytest.raises(StartFailure, match="tokenizer"):
        Grammars(Tokenizer(models.WordLevel({"a": 0}, "a")), 1, [0])


def test_a_text_that_is_an_added_token_can_be_demanded() -> None:
    """A grammar may force what the tokenizer has one ordinary added token for."""
    constraint = grammars().compile(regex("</think>[a-c]"))
    tokens: list[int] = []
    while not constraint.finished:
        tokens.append(allowed(constraint)[0])
        constraint.accept(tokens[-1])
    assert byte_tokenizer().decode(tokens) == "</think>a"


def test_a_grammar_may_begin_after_control_tokens() -> None:
    """They are spelled out where a grammar waits, though no text shows them (harmony)."""
    constraint = grammars().compile(regex("[ab]", "final<|message|>"))
    accept_text(constraint, "I think: final<|message|>")
    assert set(allowed(constraint)) & set(range(256)) == set(
        byte_tokenizer().encode("ab \t\n\r").ids
    )
