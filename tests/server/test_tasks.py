"""What a task may ask for, checked before a byte of a document is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.server.errors import DecoderRequired, InvalidRequest
from longspan.server.limits import Limits
from longspan.server.queue.job import Priority
from longspan.server.services import translate
from longspan.server.tasks.method import Method, choose_method
from longspan.server.tasks.task import (
    DEFAULT_CITATIONS,
    DEFAULT_SENTENCES,
    Ask,
    Prompt,
    Summarize,
    Task,
    check_task,
)
from longspan.v1 import inference_service_pb2 as pb

LIMITS = Limits(question_bytes=20, citations=4, summary_sentences=6)


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (Ask(""), "task.ask.question"),
        (Ask(" \t\n\u3000"), "task.ask.question"),
        (Ask("ü" * 11), "task.ask.question"),
        (Ask("why", 0), "task.ask.max_citations"),
        (Ask("why", 5), "task.ask.max_citations"),
        (Ask("why", -1), "task.ask.max_citations"),
        (Summarize(0), "task.summarize.max_sentences"),
        (Summarize(7), "task.summarize.max_sentences"),
        (Prompt(" "), "task.prompt.text"),
        (Prompt("x" * 21), "task.prompt.text"),
    ],
    ids=str,
)
def test_a_bad_field_is_named(task: Task, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_task(task, LIMITS)
    assert refused.value.field == field


@given(question=st.text(max_size=30), citations=st.integers(-2, 6))
def test_exactly_what_is_within_the_limits_passes(question: str, citations: int) -> None:
    fits = bool(question.strip()) and len(question.encode()) <= 20 and 1 <= citations <= 4
    try:
        check_task(Ask(question, citations), LIMITS)
    except InvalidRequest:
        assert not fits
    else:
        assert fits


def test_every_default_is_within_the_limits() -> None:
    assert Limits().citations >= DEFAULT_CITATIONS
    assert Limits().summary_sentences >= DEFAULT_SENTENCES
    check_task(Summarize(), Limits())


@pytest.mark.parametrize(
    ("task", "wanted"),
    [(Prompt("write a poem"), None), (Ask("why"), Method.GENERATIVE)],
)
def test_what_needs_a_decoder_says_what_works_and_how_to_get_one(
    task: Task, wanted: Method | None
) -> None:
    """Without a decoder the error names the command that starts one."""
    with pytest.raises(DecoderRequired, match=r"ask and summarize work.*longspan serve --model"):
        choose_method(task, wanted, decoder=False)


def test_a_decoder_answers_unless_the_encoder_is_asked_for() -> None:
    """The method left out is the decoder's where there is one, else the encoder's."""
    assert choose_method(Ask("why"), None, decoder=True) is Method.GENERATIVE
    assert choose_method(Ask("why"), None, decoder=False) is Method.EXTRACTIVE
    assert choose_method(Ask("why"), Method.EXTRACTIVE, decoder=True) is Method.EXTRACTIVE
    assert choose_method(Summarize(), Method.GENERATIVE, decoder=True) is Method.GENERATIVE
    assert choose_method(Prompt("do"), None, decoder=True) is Method.GENERATIVE


def test_the_encoder_cannot_follow_a_prompt() -> None:
    """Asking the extractive method for a free instruction names the field."""
    with pytest.raises(InvalidRequest) as refused:
        choose_method(Prompt("write a poem"), Method.EXTRACTIVE, decoder=True)
    assert refused.value.field == "task.method"


def test_zero_on_the_wire_means_the_default() -> None:
    asked = translate.task(pb.Task(ask=pb.Ask(question="why")))
    assert asked == Ask("why", DEFAULT_CITATIONS)
    assert translate.task(pb.Task(summarize=pb.Summarize())) == Summarize(DEFAULT_SENTENCES)
    assert translate.priority(pb.Task()) is Priority.NORMAL
    assert translate.priority(pb.Task(priority=pb.PRIORITY_BATCH)) is Priority.BATCH
    with pytest.raises(InvalidRequest, match="name one of ask"):
        translate.task(pb.Task())
