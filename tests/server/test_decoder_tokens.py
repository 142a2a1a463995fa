"""Tokens around the documents: control tokens where the template has them, and only there."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, processors

from longspan.server.decoder.template import PromptParts, load_template
from longspan.server.decoder.tokens import PromptTokeniser, load_prompt_tokeniser
from longspan.server.errors import ConfigError
from longspan.server.tasks.task import Ask, Prompt, Summarize, Task
from longspan.server.text.tokeniser import load_tokenizer
from tests.support.data import shared_data
from tests.text.families import ADDED, tokenizer_file, train

NOW = datetime(2026, 5, 4)
BEGIN, END = "<｜User｜>", "<|im_end|>"
PARTS = PromptParts(f"{BEGIN}", "Read it.\n", "\n--\n", "\n\nWhy?", f"{END}<think>\n", True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small byte-level tokenizer with four control tokens."""
    folder = tmp_path_factory.mktemp("trained")
    tokenizer = train((r"\p{L}+|\P{L}",), composed=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def tokeniser(trained: Path) -> PromptTokeniser:
    return load_prompt_tokeniser(trained)


@pytest.fixture(scope="module")
def published() -> PromptTokeniser:
    """That of DeepSeek-V3."""
    return load_prompt_tokeniser(tokenizer_file("deepseek_v3").parent)


def with_beginning(folder: Path) -> PromptTokeniser:
    """The same tokenizer, which puts BEGIN before every text and END behind it."""
    file = folder / "tokenizer.json"
    control = Tokenizer.from_file(str(file))
    tokens = [(token, control.token_to_id(token)) for token in (BEGIN, END)]
    control.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", pair=None, special_tokens=tokens
    )
    return PromptTokeniser(control, load_tokenizer(file))


def controls(tokeniser: PromptTokeniser, ids: NDArray[np.uint32]) -> list[int]:
    added = [tokeniser.plain.token_to_id(text) for text in ADDED]
    return [token for token in ids.tolist() if token in added]


def test_the_parts_are_the_tokens_of_their_texts(tokeniser: PromptTokeniser) -> None:
    """Head and tail hold their control tokens; everything reads back as it was written."""
    tokens = tokeniser.tokenise(PARTS)
    texts = (PARTS.prefix, PARTS.separator, PARTS.suffix)
    for text, ids in zip(texts, (tokens.prefix, tokens.separator, tokens.suffix), strict=True):
        assert ids.dtype == np.uint32
        assert tokeniser.plain.decode(ids.tolist(), skip_special_tokens=False) == text
    expected = [tokeniser.plain.token_to_id(text) for text in (BEGIN, END, "<think>")]
    assert controls(tokeniser, tokens.prefix) == expected[:1]
    assert controls(tokeniser, tokens.suffix) == expected[1:]


@pytest.mark.parametrize(("head", "added"), [("", 1), (BEGIN, 0), (f"x{BEGIN}", 1)])
def test_the_sequence_begins_once(trained: Path, head: str, added: int) -> None:
    """Whether the template says so or the tokenizer; its end is never added to a prompt."""
    tokeniser = with_beginning(trained)
    begin = tokeniser.plain.token_to_id(BEGIN)
    parts = PromptParts(head, "Read it.", "", "Why?", "", False)
    tokens = tokeniser.tokenise(parts)
    assert tokens.prefix[0] == begin
    assert tokens.prefix.tolist().count(begin) == head.count(BEGIN) + added
    assert controls(tokeniser, tokens.suffix) == []


WORDS = st.lists(
    st.sampled_from([*ADDED, "<|im_", "end|>", "<", "a", " ", "\n", "é"]), max_size=8
).map("".join)


@given(WORDS)
def test_no_text_of_the_caller_becomes_a_control_token(
    tokeniser: PromptTokeniser, words: str
) -> None:
    """However it is spelled; the text itself reaches the model unchanged."""
    parts = PromptParts(BEGIN, "", "", words, f"{END}\n", False)
    suffix = tokeniser.tokenise(parts).suffix
    assert controls(tokeniser, suffix) == [tokeniser.plain.token_to_id(END)]
    assert tokeniser.plain.decode(suffix.tolist(), skip_special_tokens=False) == parts.suffix


@pytest.mark.parametrize(
    "task", [Ask("Wer haftet, und wofür?"), Summarize(3), Prompt("列出所有期限。")], ids=repr
)
def test_a_prompt_of_a_published_model_is_tokenised_as_by_transformers(
    published: PromptTokeniser, task: Task
) -> None:
    """The chat's text as one piece gives the same tokens before and after the document."""
    folder = tokenizer_file("deepseek_v3").parent
    parts = load_template(folder).parts(task, NOW)
    tokens = published.tokenise(parts)
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = whole.encode(parts.prefix + "Text" + parts.suffix, add_special_tokens=False).ids
    assert ids[: len(tokens.prefix)] == tokens.prefix.tolist()
    assert ids[-len(tokens.suffix) :] == tokens.suffix.tolist()
    assert len(ids) == len(tokens.prefix) + 1 + len(tokens.suffix)


def test_a_base_model_gets_the_beginning_that_its_tokenizer_gives() -> None:
    """Its prompt without a template is one beginning, the document and the question."""
    folder = shared_data("models", "stories260K", "hf")
    parts = load_template(folder).parts(Ask("Who?"), NOW)
    assert load_prompt_tokeniser(folder).tokenise(parts).prefix.tolist() == [1]


def test_a_tokenizer_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    """Missing, no JSON, or JSON of something else."""
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        load_prompt_tokeniser(tmp_path)
    for text in ("{", json.dumps({"version": "1.0"})):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(ConfigError, match="cannot be read"):
            load_prompt_tokeniser(tmp_path)
