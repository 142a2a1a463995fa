"""Passages: whole sentences in order, never too long, never across a heading."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from longspan.server.text.passages import CONTEXT_TOKENS, Passage, PassageCutter
from longspan.server.text.sentences import SentenceSplitter
from longspan.server.text.tokeniser import StreamingTokeniser
from tests.support.data import EXAMPLES
from tests.text.pipelines import tokenizer_named
from tests.text.texts import HARD, documents

MAX_TOKENS = 64
DOCUMENT = """# Fees

The client pays 100 euros a month. It pays at once. Late payment costs interest of two per cent.

## Term

The term is one year. Either party may end it by letter. The letter must arrive in time.

| Year | Tonnes |
|---|---:|
| 2024 | 1,894 |
| 2025 | 2,001 |
"""


def passages_of(text: str, parts: Sequence[str] | None = None, least: int = 40) -> list[Passage]:
    """All passages of a text fed in parts."""
    tokenizer = tokenizer_named("packaged minilm")
    tokeniser = StreamingTokeniser(
        tokenizer, with_offsets=True, least_chars=least, piece_chars=2 * least
    )
    cutter, found = PassageCutter(max_tokens=MAX_TOKENS), list[Passage]()
    for part in parts or [text]:
        for piece in tokeniser.feed(part):
            found += cutter.feed(piece)
    for piece in tokeniser.finish():
        found += cutter.feed(piece)
    return found + cutter.finish()


def ids_of(text: str) -> list[int]:
    return tokenizer_named("packaged minilm").encode(text, add_special_tokens=False).ids


def content(data: bytes, passage: Passage) -> str:
    return data[passage.span.start : passage.span.end].decode()


def long_documents() -> list[str]:
    examples = [path.read_text("utf-8") for path in sorted(EXAMPLES.glob("*.md"))]
    return [*examples, *HARD, *documents(20, seed=3)]


def test_a_heading_starts_a_passage_and_heads_those_under_it() -> None:
    data = DOCUMENT.encode()
    found = passages_of(DOCUMENT)
    assert [content(data, passage).splitlines()[0] for passage in found][:2] == [
        "# Fees",
        "## Term",
    ]
    for passage in found:
        assert content(data, passage).count("# ") <= 1
    rows = next(passage for passage in found if "1,894" in content(data, passage))
    if not content(data, rows).startswith("## Term"):
        assert rows.ids.tolist()[: len(ids_of("## Term"))] == ids_of("## Term")


def test_rows_in_a_later_passage_carry_the_head_row_and_the_heading() -> None:
    rows = "".join(f"| {year} | {year * 7} |\n" for year in range(1900, 1960))
    text = f"## Output\n\n| Year | Tonnes |\n|---|---|\n{rows}"
    found = passages_of(text)
    context = ids_of("## Output") + ids_of("| Year | Tonnes |")
    assert len(found) > 3
    for passage in found[1:]:
        own = ids_of(content(text.encode(), passage))
        assert passage.ids.tolist()[: len(context)] == context
        assert len(passage.ids) > len(context)
        assert own[: len(passage.ids) - len(context)][0] == passage.ids[len(context)]


@pytest.mark.parametrize("text", long_documents(), ids=lambda text: text[:12].encode().hex())
def test_passages_hold_all_sentences_in_order_and_are_never_too_long(text: str) -> None:
    data, found = text.encode(), passages_of(text)
    for passage in found:
        assert 0 < len(passage.ids) <= MAX_TOKENS
        assert passage.span.start == passage.sentences[0].start
        assert passage.span.end == passage.sentences[-1].end
    spans = [span for passage in found for span in passage.sentences]
    assert all(span.start < span.end for span in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    splitter = SentenceSplitter()
    expected = [s for s in (*splitter.feed(text), *splitter.finish()) if ids_of(s.text)]
    kept = b"".join(data[span.start : span.end] for span in spans)
    assert kept == "".join(sentence.text for sentence in expected).encode()


@pytest.mark.parametrize("text", long_documents(), ids=lambda text: text[:12].encode().hex())
def test_any_chunking_gives_the_same_passages(text: str) -> None:
    expected, chance = passages_of(text, least=10**6), random.Random(text)
    for _ in range(5):
        places = sorted(chance.randint(0, len(text)) for _ in range(chance.choice((1, 5, 40))))
        bounds = zip([0, *places], [*places, len(text)], strict=True)
        found = passages_of(text, [text[a:b] for a, b in bounds], least=chance.choice((1, 30, 200)))
        assert [p.sentences for p in found] == [p.sentences for p in expected]
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one.ids, other.ids)
            assert np.array_equal(one.terms, other.terms)


def test_a_sentence_longer_than_a_passage_is_cut_between_tokens() -> None:
    text = "every word counts and " * 60
    found = passages_of(text)
    assert len(found) > 3
    assert np.concatenate([passage.ids for passage in found]).tolist() == ids_of(text)


def test_a_limit_that_leaves_no_room_beside_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 48 tokens"):
        PassageCutter(max_tokens=2 * CONTEXT_TOKENS)
