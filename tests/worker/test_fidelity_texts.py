"""Documents with a number hidden in them, and the prompts around them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.worker.failures import StartFailure
from longspan.worker.fidelity.document import hidden
from longspan.worker.fidelity.haystack import filler, sentences
from longspan.worker.fidelity.needle import Needle, random_needle
from longspan.worker.fidelity.prompt import Prompter
from tests.worker.decoders import CHATML, R1, TINY, save_tokenizer

NEEDLE = Needle("4839201", "Bergen")
VOCABULARY = 384
assert TINY["vocab_size"] == VOCABULARY


@pytest.fixture(scope="module", params=[None, CHATML, R1], ids=["plain", "chatml", "r1"])
def prompter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prompter:
    folder = Path(tmp_path_factory.mktemp("tokenizer"))
    save_tokenizer(folder, vocabulary=VOCABULARY, chat_template=request.param)
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    return Prompter(folder, VOCABULARY)


@given(st.text() | st.text(alphabet='ab. !?\n。”"'))
def test_the_pieces_of_a_text_are_the_text(text: str) -> None:
    pieces = list(sentences(text))
    assert "".join(pieces) == text
    assert all(pieces)


def test_a_text_is_cut_behind_sentences() -> None:
    text = 'He said "no." Then 3.5 came.\n\nWer?  患者。二番。'
    assert list(sentences(text)) == [
        'He said "no." ', "Then 3.5 came.\n\n", "Wer?  ", "患者。", "二番。",
    ]  # fmt: skip


def test_made_up_text_is_the_same_every_time_and_names_no_number() -> None:
    text = "".join(islice(filler(1), 500))
    assert text == "".join(islice(filler(1), 500)) != "".join(islice(filler(2), 500))
    assert not any(character.isdigit() for character in text)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("It is 4839201.", True),
        ("4,839,201", True),
        ("4 839 201", True),
        ("48392010", False),
        ("4839202", False),
        ("no number", False),
        ("first 7 then 4839201!", True),
    ],
)
def test_a_number_counts_as_a_whole(answer: str, found: bool) -> None:
    assert NEEDLE.found(answer) is found


def test_needles_differ_and_come_again() -> None:
    needles = [random_needle(str(seed)) for seed in range(20)]
    assert len({needle.number for needle in needles}) == 20
    assert all(len(needle.number) == len(set(needle.number)) == 7 for needle in needles)
    assert random_needle("3") == needles[3]


@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
def test_the_number_stands_once_and_where_it_was_wanted(prompter: Prompter, depth: float) -> None:
    document = hidden(prompter, filler(0), NEEDLE, length=2000, depth=depth)
    assert len(document.tokens) <= 2000
    assert document.zones.answer_start == len(document.tokens)
    head = len(document.prompt.head)
    text = prompter.decode(document.tokens[head : document.task_start].tolist())
    assert text.count(NEEDLE.sentence) == 1
    before, _, after = text.partition(NEEDLE.sentence)
    assert len(before) / (len(before) + len(after)) == pytest.approx(depth, abs=0.05)
    task = prompter.decode(document.tokens[document.task_start :].tolist())
    assert NEEDLE.question in task
    assert NEEDLE.number not in task


def test_the_places_of_the_number_are_known_in_the_right_answer(prompter: Prompter) -> None:
    prompt = prompter.prompt(NEEDLE)
    number = prompt.answer[prompt.number.start : prompt.number.stop].tolist()
    assert prompter.decode(number).strip() == NEEDLE.number
    lead = prompter.decode(prompt.answer[: prompt.number.start].tolist())
    assert lead.strip() == NEEDLE.lead.strip()


def test_a_template_is_split_around_the_message(tmp_path: Path) -> None:
    """Its control tokens are tokens, and the document stands between its parts."""
    save_tokenizer(tmp_path, vocabulary=VOCABULARY, chat_template=CHATML)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    prompter = Prompter(tmp_path, VOCABULARY)
    prompt = prompter.prompt(NEEDLE)
    text = prompter.tokenizer.decode(prompt.head.tolist(), skip_special_tokens=False)
    assert text.startswith("<|im_start|>user\nRead the text first.")
    behind = prompter.tokenizer.decode(prompt.task.tolist(), skip_special_tokens=False)
    assert behind.endswith("<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ nothing.at.all }}", "x"])
def test_a_template_that_shows_no_message_is_refused(tmp_path: Path, template: str) -> None:
    save_tokenizer(tmp_path, vocabulary=VOCABULARY, chat_template=template)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(StartFailure, match="chat template"):
        Prompter(tmp_path, VOCABULARY)


def test_a_text_that_is_too_short_is_refused(prompter: Prompter) -> None:
    """It is not repeated: a text that was read before is foretold by any policy."""
    with pytest.raises(StartFailure, match="too short to tell"):
        hidden(prompter, sentences("One sentence. " * 20), NEEDLE, length=2000, depth=0.5)
