"""Reasoning and answer are told apart in a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.server.decoder.reasoning import MOST_INDENT, Reasoning, ReasoningSplitter

TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</thi", "think>", "a", " ", "\n", "答"]),
    max_size=14,
).map("".join)


def split(pieces: list[str], *, thinks: bool = False) -> tuple[str, str]:
    """Everything of both parts; reasoning never follows an answer."""
    splitter = ReasoningSplitter(thinks)
    parts = [part for piece in pieces for part in splitter.push(piece)] + splitter.finish()
    kinds = [isinstance(part, Reasoning) for part in parts]
    assert kinds == sorted(kinds, reverse=True)
    assert all(part.text for part in parts)
    reasoning = "".join(part.text for part in parts if isinstance(part, Reasoning))
    return reasoning, "".join(part.text for part in parts if not isinstance(part, Reasoning))


def naive(text: str, *, thinks: bool) -> tuple[str, str]:
    """The whole text at once."""
    rest = text.lstrip()
    if rest.startswith("<think>"):
        thinks, text = True, rest.removeprefix("<think>")
    if not thinks:
        return "", text
    reasoning, _, answer = text.lstrip().partition("</think>")
    return reasoning, answer.lstrip()


@given(TEXTS, st.lists(st.integers(0, 60), max_size=8), st.booleans())
def test_any_pieces_give_the_parts_of_the_whole_text(
    text: str, places: list[int], thinks: bool
) -> None:
    """A mark may be cut anywhere."""
    cuts = sorted({min(place, len(text)) for place in places})
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(pieces, thinks=thinks) == naive(text, thinks=thinks)
    assert split(list(text), thinks=thinks) == naive(text, thinks=thinks)


@pytest.mark.parametrize(
    ("text", "thinks", "expected"),
    [
        ("<think>\nhm\n</think>\n\nYes.", False, ("hm\n", "Yes.")),
        ("hm\n</think>\n\nYes.", True, ("hm\n", "Yes.")),
        ("<think>\nhm</think>Yes.", True, ("hm", "Yes.")),
        ("<think>\n\n</think>\n\nYes.", False, ("", "Yes.")),
        ("never closed </thin", True, ("never closed </thin", "")),
        ("Yes, <think> is a mark.", False, ("", "Yes, <think> is a mark.")),
        (" Paris", False, ("", " Paris")),
    ],
)
def test_what_models_write(text: str, thinks: bool, expected: tuple[str, str]) -> None:
    """The shapes that reasoning models are known for, and answers that only speak of marks."""
    assert split([text], thinks=thinks) == expected


def test_nothing_but_a_possible_mark_is_held_back() -> None:
    """Text streams on as it comes; white space alone cannot hold it back for ever."""
    splitter = ReasoningSplitter(thinks=True)
    assert splitter.push("I wonder <") == [Reasoning("I wonder ")]
    assert splitter.push("b>") == [Reasoning("<b>")]
    assert ReasoningSplitter(thinks=False).push(" " * (MOST_INDENT + 1))


def test_other_marks_can_be_named() -> None:
    """The harmony format leaves the names of its channels in the text."""
    splitter = ReasoningSplitter(True, end="assistantfinal")
    parts = splitter.push("Let me see.assistant") + splitter.push("finalYes.")
    assert [part.text for part in parts] == ["Let me see.", "Yes."]
