"""Sentences do not depend on the chunks, stand where they say, and follow the stated rules."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.server.text.sentences import (
    BLOCK_CHARS,
    HEADING_CHARS,
    SENTENCE_CHARS,
    Kind,
    Sentence,
    SentenceSplitter,
    sentence_spans,
)
from tests.text.corpus import OWN, long_texts

PARTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *(". ", "! ", "?\n", ".", "。", "！”", "…", "\n", "\r\n", "\n\n", " ", "\t"),
                *("# Title\n", "\n- item", "\n1. ", "7.2. ", "| a | b |\n", "|---|\n", "e.g. "),
                *("Mr. ", "3.14", '."', "Word", "word", "第二条", "，", "🙂", "é", " \u3000"),
                *("long " * 500, "x" * 2500, "y" * 4100, "甲。" * 1500),
            ]
        ),
        st.text(max_size=5),
    ),
    max_size=25,
)


def sentences_of(*parts: str) -> list[Sentence]:
    splitter = SentenceSplitter()
    found = [sentence for part in parts for sentence in splitter.feed(part)]
    return found + splitter.finish()


def texts_of(text: str) -> list[str]:
    return [sentence.text for sentence in sentences_of(text)]


def is_nothing(gap: str) -> bool:
    """White space, or lines that only draw a table."""
    return not "".join(gap.split()).strip("|:+=_*~-")


def check_places(text: str, sentences: list[Sentence]) -> None:
    """In order, at their offsets, and nothing but white space or table rules between them."""
    data, end = text.encode("utf-8"), 0
    for sentence in sentences:
        assert sentence.start_char >= end
        assert text[sentence.start_char : sentence.end_char] == sentence.text
        assert data[sentence.start_byte : sentence.end_byte].decode() == sentence.text
        assert sentence.text == sentence.text.strip() != ""
        assert is_nothing(text[end : sentence.start_char])
        end = sentence.end_char
    assert is_nothing(text[end:])


@settings(max_examples=150, deadline=None)
@given(parts=PARTS)
def test_any_chunking_gives_the_same_sentences_at_their_places(parts: list[str]) -> None:
    text = "".join(parts)
    whole = sentences_of(text)
    assert sentences_of(*parts) == whole
    check_places(text, whole)


@pytest.mark.parametrize("size", [1, 7, 1000, BLOCK_CHARS])
def test_a_real_text_in_chunks_of_one_size_gives_the_same_sentences(size: int) -> None:
    for text in ("\n".join(OWN.values()), *(text[:30_000] for text in long_texts()[:3])):
        chunks = [text[at : at + size] for at in range(0, len(text), size)]
        whole = sentences_of(text)
        assert sentences_of(*chunks) == whole
        check_places(text, whole)


@settings(deadline=None)
@given(block=st.lists(st.sampled_from([". ", "! ", "。", "x", " ", "\n", "e.g. ", "y" * 2100])))
def test_the_spans_of_a_block_cover_it(block: list[str]) -> None:
    text = "".join(block)
    spans = sentence_spans(text)
    bounds = [0, *(end for _, end in spans)]
    assert [start for start, _ in spans] == bounds[:-1]
    assert bounds[-1] == len(text)


EXAMPLES = [
    ("plain", "It rained. We stayed! Why? No.", ["It rained.", "We stayed!", "Why?", "No."]),
    ("title", "Ask Mr. Smith now. He knows.", ["Ask Mr. Smith now.", "He knows."]),
    ("e.g.", "Metals, e.g. Copper, rose. Yes.", ["Metals, e.g. Copper, rose.", "Yes."]),
    ("initial", "J. R. Smith spoke. We left.", ["J. R. Smith spoke.", "We left."]),
    ("company", "Acme Inc. Holdings paid. Fine.", ["Acme Inc. Holdings paid.", "Fine."]),
    ("decimal", "It grew 3.5% to 1.2 in May. Good.", ["It grew 3.5% to 1.2 in May.", "Good."]),
    ("clause", "7.2. Fees are due. 7.3 Costs too.", ["7.2. Fees are due.", "7.3 Costs too."]),
    ("version", "See v1.2.3 at a.b.c today. Yes.", ["See v1.2.3 at a.b.c today.", "Yes."]),
    ("lower case", "It was two ft. of it. Ok.", ["It was two ft. of it.", "Ok."]),
    ("quotes", 'He said "Go." Then left. “No.”', ['He said "Go."', "Then left.", "“No.”"]),
    ("brackets", "It ended (at last.) Good. [Yes!]", ["It ended (at last.)", "Good.", "[Yes!]"]),
    ("dots", "Wait... Then what?! Nothing.", ["Wait...", "Then what?!", "Nothing."]),
    ("wrapped", "One line\nand the next. End.", ["One line\nand the next.", "End."]),
    ("crlf", "One line\r\nand more.\r\n\r\nNext one.\r\n", ["One line\r\nand more.", "Next one."]),
    ("chinese", "甲方付款。乙方呢？好！", ["甲方付款。", "乙方呢？", "好！"]),
    ("chinese quotes", "他说：“走。”然后离开……完。", ["他说：“走。”", "然后离开……", "完。"]),
    ("items", "- first\n- second\n3. third", ["- first", "- second", "3. third"]),
    ("chinese items", "（一）甲方\n（二）乙方", ["（一）甲方", "（二）乙方"]),
    ("paragraphs", "no end here\n\nnor here", ["no end here", "nor here"]),
    ("only space", " \n\t\r\n \u3000", []),
]


@pytest.mark.parametrize(("rule", "text", "expected"), EXAMPLES)
def test_a_rule_holds(rule: str, text: str, expected: list[str]) -> None:
    assert texts_of(text) == expected, rule


TITLES = [
    "# Rates",
    "### 3 Rates\r",
    "Rates of Return",
    "2 Rates",
    "第二条 费用",
    "X" * HEADING_CHARS,
]
NO_TITLES = ["It rains.", "rates", "Two\nlines", "Total:", "X" * (HEADING_CHARS + 1), "#tag x"]


@pytest.mark.parametrize("title", TITLES)
def test_a_heading_is_a_block_of_its_own(title: str) -> None:
    first, second = sentences_of(f"{title}\n\nThe rates rose.\n")
    assert (first.text, first.kind, first.ends_block) == (title.strip(), Kind.HEADING, True)
    assert (second.text, second.kind, second.ends_block) == ("The rates rose.", Kind.PROSE, True)


@pytest.mark.parametrize("line", NO_TITLES)
def test_other_short_blocks_are_prose(line: str) -> None:
    assert [sentence.kind for sentence in sentences_of(f"{line}\n\n")] == [Kind.PROSE]


def test_rows_of_a_table_are_sentences_and_its_rule_is_not() -> None:
    found = sentences_of("Before.\n| Year | T. x |\n|---|---:|\n| 2024 | 1. 2 |\nAfter it.\n")
    rows = [sentence for sentence in found if sentence.kind is Kind.ROW]
    assert [row.text for row in rows] == ["| Year | T. x |", "| 2024 | 1. 2 |"]
    assert not any(row.ends_block for row in rows)
    assert [found[0].text, found[-1].text] == ["Before.", "After it."]
    assert found[0].ends_block


def test_only_the_last_sentence_of_a_block_ends_it() -> None:
    found = sentences_of("One is. Two is.\nThree is.\n\nFour is.")
    assert [sentence.ends_block for sentence in found] == [False, False, True, True]


@pytest.mark.parametrize("unit", ["word ", "x", "甲", "| cell ", "word\n"])
def test_text_without_ends_is_cut_and_nothing_is_lost(unit: str) -> None:
    text = unit * (30_000 // len(unit))
    found = sentences_of(text)
    assert max(len(sentence.text) for sentence in found) <= SENTENCE_CHARS
    kept = "".join("".join(sentence.text.split()) for sentence in found)
    assert kept == "".join(text.split())


def test_a_sentence_is_given_away_before_the_document_ends() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("One is. Two is.\n") == []
    assert [sentence.text for sentence in splitter.feed("\nThree")] == ["One is.", "Two is."]
    long = SentenceSplitter()
    assert len(long.feed("This is one of many. " * 1000)) > 900


HOSTILE = [".", "?!", "e.g. ", "E.G. ", '."', "1. ", ". " + '"' * 50, "\n", "|\n"]


@pytest.mark.parametrize("unit", [*HOSTILE, "y" * 2000 + " Mr. Z. B" * 300 + "\n\n"])
def test_hostile_text_takes_linear_time(unit: str) -> None:
    """These take at most a second; looking at each place again and again takes over 10 s."""
    started = time.process_time()
    sentences_of((unit * 100_000)[:100_000])
    assert time.process_time() - started < 4.0
