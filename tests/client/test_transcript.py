"""A repeated answer is delivered once and must be the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.client import (
    AnswerChanged,
    Citation,
    Completed,
    DocumentId,
    Event,
    FinishReason,
    Progress,
    Reasoning,
    Span,
    Stage,
    TextDelta,
    Timings,
    UnverifiedQuote,
    Usage,
)
from longspan.client._transcript import Transcript

COMPLETED = Completed(
    finish_reason=FinishReason.STOP,
    usage=Usage(document_tokens=0, cached_tokens=0, task_tokens=0, retries=0),
    timings=Timings(upload_s=0, first_delta_s=0, total_s=0),
    documents=(),
    model="m",
)


def cite(index: int, quote: str = "quote", score: float = 0.5) -> Citation:
    return Citation(
        index=index,
        document_id=DocumentId("doc"),
        span=Span(0, len(quote)),
        quote=quote,
        passage=Span(0, len(quote)),
        score=score,
    )


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({min(place, len(text)) for place in places} | {len(text)})
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False) if a < b]


CUTS = st.lists(st.integers(0, 60), max_size=8)


@given(text=st.text(max_size=60), runs=st.lists(st.tuples(CUTS, st.integers(0, 9)), max_size=4))
def test_however_streams_break_and_are_cut_the_text_comes_once(
    text: str, runs: list[tuple[list[int], int]]
) -> None:
    transcript, delivered = Transcript(), ""
    for places, survivors in [*runs, ([], 100)]:
        transcript.reopen()
        for piece in cut(text, places)[:survivors]:
            event = transcript.admit(TextDelta(piece))
            delivered += event.text if isinstance(event, TextDelta) else ""
    assert delivered == text
    assert transcript.admit(COMPLETED) is COMPLETED
    answer = transcript.answer()
    assert answer is not None
    assert answer.text == text


@given(
    thoughts=st.text(max_size=30),
    text=st.text(max_size=30),
    quotes=st.lists(st.text(max_size=3), max_size=3),
    runs=st.lists(st.tuples(CUTS, CUTS, st.integers(0, 20)), max_size=4),
)
def test_reasoning_text_and_quotations_come_once_each(
    thoughts: str, text: str, quotes: list[str], runs: list[tuple[list[int], list[int], int]]
) -> None:
    """Each part of a generated answer is matched by itself, whatever breaks between them."""
    transcript = Transcript()
    delivered: list[Event] = []
    for thought_cuts, text_cuts, survivors in [*runs, ([], [], 100)]:
        transcript.reopen()
        events: list[Event] = [Reasoning(piece) for piece in cut(thoughts, thought_cuts)]
        events += [TextDelta(piece) for piece in cut(text, text_cuts)]
        events += [UnverifiedQuote(quote) for quote in quotes]
        admitted = map(transcript.admit, events[:survivors])
        delivered += [event for event in admitted if event is not None]
    assert "".join(e.text for e in delivered if isinstance(e, Reasoning)) == thoughts
    assert "".join(e.text for e in delivered if isinstance(e, TextDelta)) == text
    assert [e.quote for e in delivered if isinstance(e, UnverifiedQuote)] == quotes
    transcript.admit(COMPLETED)
    answer = transcript.answer()
    assert answer is not None
    assert (answer.text, answer.reasoning) == (text, thoughts)
    assert [one.quote for one in answer.unverified] == quotes


def test_another_unverified_quotation_is_refused() -> None:
    """A quotation that was marked cannot silently become another."""
    transcript = Transcript()
    transcript.admit(UnverifiedQuote("one"))
    transcript.reopen()
    with pytest.raises(AnswerChanged, match="unverified quotation 1"):
        transcript.admit(UnverifiedQuote("two"))


def test_citations_come_once_and_their_scores_may_wobble() -> None:
    transcript = Transcript()
    assert transcript.admit(cite(1)) == cite(1)
    transcript.reopen()
    assert transcript.admit(cite(1, score=0.50001)) is None
    assert transcript.admit(cite(2)) == cite(2)


def test_progress_passes_always() -> None:
    transcript, progress = Transcript(), Progress(stage=Stage.INDEXING)
    transcript.reopen()
    assert transcript.admit(progress) is progress


def test_other_text_is_refused() -> None:
    transcript = Transcript()
    transcript.admit(TextDelta("The answer is 4"))
    transcript.reopen()
    with pytest.raises(AnswerChanged, match="after 0 characters"):
        transcript.admit(TextDelta("The answer was"))


def test_another_citation_is_refused() -> None:
    transcript = Transcript()
    transcript.admit(cite(1, "one"))
    transcript.reopen()
    with pytest.raises(AnswerChanged, match="citation 1"):
        transcript.admit(cite(1, "two"))


def test_a_shorter_answer_is_refused() -> None:
    transcript = Transcript()
    transcript.admit(TextDelta("long answer"))
    transcript.reopen()
    transcript.admit(TextDelta("long"))
    with pytest.raises(AnswerChanged, match="shorter"):
        transcript.admit(COMPLETED)
