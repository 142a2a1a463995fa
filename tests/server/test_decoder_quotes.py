"""Quotations are found in a streamed answer, and in the documents or nowhere."""

from __future__ import annotations

import mmap
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from longspan.server.decoder.normal_form import SAFE_CUT, normal_form, traced_normal_form
from longspan.server.decoder.normal_text import NormalText
from longspan.server.decoder.quote_finder import LONGEST_BYTES, QuoteFinder, QuotePlace
from longspan.server.decoder.quotes import LONGEST_CHARS, QuoteScanner, is_quotation
from longspan.server.text.spans import Span

MARKS = "“”„\"«»「」『』’'"
ANSWERS = st.lists(
    st.sampled_from(
        [*MARKS, "the term of this lease", "合同终止后三十日内", " ", "\n", "\n\n", "5", ",", "."]
    ),
    max_size=24,
).map("".join)
SPACES = [" ", "  ", "\n", "\r\n", "\n\n", "\t", "\u00a0", "\u3000", "\u2028"]
HYPHENS = ["-", "–", "\u00ad", "\u200b", "-\n", "- "]
LETTERS = [
    "the",
    "lease",
    "e\u0301",
    "é",
    "合同",
    "终",
    "か\u3099",
    "한",
    "क्षि",
    "12",
    "3",
    "ß",
    "_",
    "。",
    "，",
    ".",
]
TEXTS = st.lists(st.sampled_from([*SPACES, *HYPHENS, *LETTERS, *MARKS, "😀"]), max_size=40).map(
    "".join
)
ASCII = st.text(alphabet="ab-\n \u00ad'", max_size=12)


def scan(pieces: list[str]) -> list[str]:
    scanner = QuoteScanner()
    return [quote for piece in pieces for quote in scanner.push(piece)] + scanner.finish()


def cut(text: str, places: list[int]) -> list[str]:
    cuts = sorted({min(place, len(text)) for place in places})
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(ANSWERS, st.lists(st.integers(0, 200), max_size=8))
def test_any_pieces_give_the_quotations_of_the_whole_answer(text: str, places: list[int]) -> None:
    """A quotation may be spread over any number of deltas."""
    assert scan(cut(text, places)) == scan([text])
    assert scan(list(text)) == scan([text])


@given(ANSWERS)
def test_a_quotation_is_part_of_the_answer_between_marks(text: str) -> None:
    """Nothing is made up, and what is short is left out."""
    for quote in scan([text]):
        assert is_quotation(quote)
        starts = [at for at in range(1, len(text)) if text.startswith(quote, at)]
        ends = [(text[at - 1], text[at + len(quote) :][:1]) for at in starts]
        assert any(before in MARKS and behind and behind in MARKS for before, behind in ends)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("It says “the rent is due monthly” there.", ["the rent is due monthly"]),
        ('It says "the rent is due monthly."', ["the rent is due monthly."]),
        ("„die Miete ist fällig“ und »die Miete ist fällig«", ["die Miete ist fällig"] * 2),
        ("« le loyer est dû » puis «le loyer est dû»", [" le loyer est dû ", "le loyer est dû"]),
        ("「契約は三十日後に終わる」と『契約は三十日後に終わる』", ["契約は三十日後に終わる"] * 2),
        ('合同规定"租金应当按月支付"以及“租金应当按月支付”。', ["租金应当按月支付"] * 2),
        ('("the rent is due monthly")', ["the rent is due monthly"]),
        ('clause="the rent is due monthly",', ["the rent is due monthly"]),
        ("**“the rent is due monthly”**", ["the rent is due monthly"]),
        ("“the tenant’s rent isn't due yet”", ["the tenant’s rent isn't due yet"]),
        ('A 5" pipe and a 7" pipe are not quoted here.', []),
        ('A 5"x7 frame that is not quoted and a 9"x3 frame', []),
        ("The \"Term\" and the “Effective Date” are defined, 'the rent is due monthly' not.", []),
        ('“he said "the rent is due" to me”', ['he said "the rent is due" to me']),
        ('"he said "the rent is due" to me"', ['he said "the rent is due" to me']),
        ('“the rent is due monthly"', ["the rent is due monthly"]),
        ("a stray “ and “the rent is due monthly” later", ["the rent is due monthly"]),
        ('a stray "mark and "the rent is due monthly" later', ["the rent is due monthly"]),
        ('a stray "mark\n \n"the rent is due monthly" later', ["the rent is due monthly"]),
        ("never “closed at all, the rent is due", []),
        ("” « the rent is due monthly", []),
    ],
)
def test_what_counts_as_a_quotation(answer: str, expected: list[str]) -> None:
    """Marks of many languages; scare quotes, inches and apostrophes are none."""
    assert scan([answer]) == expected


def test_a_quotation_is_given_as_soon_as_it_is_closed() -> None:
    """A straight mark needs the character behind it, the others do not."""
    scanner = QuoteScanner()
    assert scanner.push("“the rent is due monthly”") == ["the rent is due monthly"]
    assert scanner.push(' "the rent is due monthly"') == []
    assert scanner.push(" ") == ["the rent is due monthly"]


def test_a_quotation_that_never_ends_holds_little_back() -> None:
    """Over 64 KiB behind an open mark: what is closed within is found, the rest let go."""
    filler = "the rent is due monthly and " * 400
    scanner = QuoteScanner()
    found = []
    for _ in range(8):
        found += scanner.push("“" + filler + "«the term of this lease» " + filler)
        assert len(scanner._held) <= LONGEST_CHARS
    assert found + scanner.finish() == ["the term of this lease"] * 8
    assert scan(["“" * 5000 + "the rent is due monthly”"]) == ["the rent is due monthly"]
    assert scan(["“" + "a b c " * LONGEST_CHARS + "”"]) == []


@given(TEXTS | ASCII)
@example("a-\n-b")
def test_the_normal_form_is_reached_once(text: str) -> None:
    """Normalising it again changes nothing, and the traced one is the same."""
    normal = normal_form(text)
    assert normal_form(normal) == normal
    traced, places = traced_normal_form(text)
    assert traced == normal
    assert list(places) == sorted(set(places))
    assert len(places) == len(traced)


@given(TEXTS | ASCII)
@example("合同 终止")
@example("exam-\nple")
def test_a_text_may_be_normalised_in_parts(text: str) -> None:
    """Both sides of every safe cut, alone."""
    for match in SAFE_CUT.finditer(text, 1):
        at = match.start()
        assert normal_form(text[:at]) + normal_form(text[at:]) == normal_form(text)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("the  rent\r\n is\u00a0due", "the rent is due"),
        ("“it’s” «due»", '"it\'s" "due"'),
        ("pay–ment 3–4", "payment 3-4"),
        ("exam-\n  ple", "example"),
        ("exam\u00adple\u200b", "example"),
        ("合同 \n 终止。\n终止", "合同终止。终止"),
        ("合同 A 终止", "合同 A 终止"),
    ],
)
def test_spellings_that_are_the_same(left: str, right: str) -> None:
    """White space, quotation marks, dashes and hyphens are what writers change."""
    assert normal_form(left) == normal_form(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("-5", "5"),
        ("3-4", "34"),
        ("1,894", "1894"),
        ("Rent", "rent"),
        ("not due", "due"),
        ("a b", "ab"),
    ],
)
def test_spellings_that_differ(left: str, right: str) -> None:
    """What changes the meaning is never smoothed over."""
    assert normal_form(left) != normal_form(right)


def naive_spans(text: str, wanted: str) -> set[Span]:
    """All stretches of the text whose normal form, alone, is ``wanted``."""
    return {
        Span(len(text[:a].encode()), len(text[:b].encode()))
        for a in range(len(text))
        for b in range(a + 1, len(text) + 1)
        if normal_form(text[a:b]) == wanted
    }


@given(TEXTS | ASCII, st.data(), st.integers(1, 40))
def test_the_way_back_leads_to_the_bytes(text: str, data: st.DataObject, block_bytes: int) -> None:
    """A piece of the normal form is found at a span whose normal form is that piece, whatever
    the blocks; and what is not there is not found."""
    normal = normal_form(text)
    start = data.draw(st.integers(0, len(normal)))
    wanted = normal[start : data.draw(st.integers(start, len(normal)))].strip() or "zz"
    span = NormalText(text.encode(), block_bytes=block_bytes).find(wanted)
    if span is None:
        assert wanted not in normal
    else:
        assert span in naive_spans(text, wanted)


def says_the_same(said: str, quote: str) -> bool:
    """The rule as it is stated: equal bytes, or equal normal forms but for the ends."""
    spellings = [quote, unicodedata.normalize("NFC", quote), unicodedata.normalize("NFD", quote)]
    normal = [normal_form(spelling).strip() for spelling in spellings]
    trimmed = [spelling.strip(" .,;:!?…*_。，；：！？、\"'") for spelling in normal]
    return said == quote.strip() or normal_form(said) in {*normal, *trimmed}


@given(st.lists(TEXTS, min_size=1, max_size=3), st.data())
def test_a_quotation_cut_out_of_a_document_is_found(texts: list[str], data: st.DataObject) -> None:
    """With its white space changed, at a place that says the same."""
    text = data.draw(st.sampled_from(texts))
    start = data.draw(st.integers(0, len(text)))
    cut_out = text[start : data.draw(st.integers(start, len(text)))]
    quote = "\n ".join(cut_out.split()) if data.draw(st.booleans()) else cut_out
    found = QuoteFinder([one.encode() for one in texts]).find(quote)
    wanted = normal_form(quote).strip()
    if found is None:
        assert len(wanted) < 2 or not any(wanted in normal_form(one) for one in texts)
        return
    said = texts[found.document].encode()[found.span.start : found.span.end].decode()
    assert says_the_same(said, quote)


@given(TEXTS, TEXTS)
def test_what_is_not_there_is_not_found(text: str, quote: str) -> None:
    """A place is returned only where the document says the quotation's words."""
    found = QuoteFinder([text.encode()]).find(quote)
    if found is not None:
        assert says_the_same(text.encode()[found.span.start : found.span.end].decode(), quote)


CONTRACT = "A: The “Tenant” shall pay\nthe rent, without de-\nduction. B: The tenant shall\npay."
ESSAY = "In short: the tenant shall pay. Le café ferme à huit heures."


@pytest.mark.parametrize(
    ("quote", "document", "said"),
    [
        ("The tenant shall\npay", 0, "The tenant shall\npay"),
        ("the tenant shall pay", 1, "the tenant shall pay"),
        ("The tenant shall pay", 0, "The tenant shall\npay"),
        ('The "Tenant" shall pay the rent', 0, "The “Tenant” shall pay\nthe rent"),
        ("the rent, without deduction", 0, "the rent, without de-\nduction"),
        ("…pay the rent, without deduction!", 0, "pay\nthe rent, without de-\nduction"),
        ("Le cafe\u0301 ferme", 1, "Le café ferme"),
    ],
)
def test_the_closest_place_is_taken(quote: str, document: int, said: str) -> None:
    """The same bytes in any document go before another spelling in the first."""
    documents = [CONTRACT.encode(), ESSAY.encode()]
    found = QuoteFinder(documents).find(quote)
    assert found is not None
    assert found.document == document
    assert documents[document][found.span.start : found.span.end].decode() == said


@pytest.mark.parametrize(
    "quote", ["The tenant shall not pay", "the rent without deduction", "", " ", "…!", "THE TENANT"]
)
def test_what_the_documents_do_not_say_is_found_nowhere(quote: str) -> None:
    """A word more or less, another mark within, or nothing but marks."""
    assert QuoteFinder([CONTRACT.encode(), ESSAY.encode()]).find(quote) is None


def test_a_quotation_too_long_to_be_one_is_not_looked_for() -> None:
    """Even where the document says it."""
    long = b"the rent is due monthly " * (LONGEST_BYTES // 16)
    assert QuoteFinder([long]).find(long.decode()) is None


def test_a_mapped_file_is_read_across_windows(tmp_path: Path) -> None:
    """Documents need not be in memory; a quotation may stand across two windows."""
    quote = "the rent is due monthly"
    text = "x" * ((1 << 20) - 7) + quote + " " + "lorem ipsum " * 1000
    file = tmp_path / "document"
    file.write_bytes(text.encode())
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        finder = QuoteFinder([mapped])
        at = text.index(quote)
        assert finder.find(quote) == QuotePlace(0, Span(at, at + len(quote)))
        assert finder.find("the rent\nis due") == QuotePlace(0, Span(at, at + 15))


@pytest.mark.parametrize(
    "unit", ["- ", "-\n", "\u00ad", " ", "\n", "“", "x", "e\u0301", "a-\n", "の"]
)
def test_a_document_without_a_place_to_cut_is_read_all_the_same(unit: str) -> None:
    """Runs of hyphens, spaces and the like become one long block; what follows is found."""
    text = "lease. " + unit * 60_000 + " the rent  is due"
    found = QuoteFinder([text.encode()]).find("the rent is due")
    assert found == QuotePlace(0, Span(len(text.encode()) - 16, len(text.encode())))
