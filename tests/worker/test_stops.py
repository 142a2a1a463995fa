"""Stop strings in a text that arrives in pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.sampling.answer_stops import AnswerStops
from longspan.worker.sampling.stops import StopMatcher

TEXT = st.text("aab\n", max_size=40)
STOPS = st.lists(st.text("aab\n", min_size=1, max_size=6), max_size=4)


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the stop that is complete first, the longest of those."""
    found = [(text.find(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    if not found:
        return text, False
    end, length = min(found)
    return text[: end + length], True


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    """The text cut at these places."""
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)]


@settings(deadline=None)
@given(TEXT, STOPS, st.lists(st.integers(0, 40), max_size=12))
def test_any_cut_gives_what_the_whole_text_gives(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    """The shown text and whether a stop was found do not depend on the pieces."""
    matcher = StopMatcher(stops)
    shown = ""
    for piece in pieces_of(text, cuts):
        safe, stopped = matcher.push(piece)
        shown += safe
        if stopped:
            break
    else:
        stopped = False
        shown += matcher.flush()
    assert (shown, stopped) == naive(text, stops)


def naive_answer(text: str, stops: list[str], begins: str) -> tuple[str, bool]:
    """The same for the answer alone; all before it is shown."""
    if not begins:
        return naive(text, stops)
    _, found, rest = text.partition(begins)
    if not found:
        return text, False
    answer = rest.lstrip()
    shown, stopped = naive(answer, stops)
    return text[: len(text) - len(answer)] + shown, stopped


@settings(deadline=None)
@given(TEXT, STOPS, st.text("ab\n", max_size=3), st.lists(st.integers(0, 40), max_size=12))
def test_stops_count_in_the_answer_alone_however_the_text_is_cut(
    text: str, stops: list[str], begins: str, cuts: list[int]
) -> None:
    """Behind the mark and the white space after it; without a mark, everywhere."""
    matcher = AnswerStops(stops, begins)
    shown = ""
    for piece in pieces_of(text, cuts):
        safe, stopped = matcher.push(piece)
        shown += safe
        if stopped:
            break
    else:
        stopped = False
        shown += matcher.flush()
    assert (shown, stopped) == naive_answer(text, stops, begins)


def test_a_line_end_is_a_stop_of_the_answer_only() -> None:
    """Neither the lines of the reasoning nor those before the answer end anything."""
    matcher = AnswerStops(["\n"], "</think>")
    assert matcher.push("Well.\nHm.\n</th") == ("Well.\nHm.\n</th", False)
    assert matcher.push("ink>\n") == ("ink>\n", False)
    assert matcher.push("\nYes.\nNo.") == ("\nYes.", True)


@settings(deadline=None)
@given(TEXT, STOPS)
def test_only_what_may_begin_a_stop_is_held_back(text: str, stops: list[str]) -> None:
    """What is not shown yet is the longest end of the text that begins a stop."""
    matcher = StopMatcher(stops)
    shown, stopped = matcher.push(text)
    if not stopped:
        held = text[len(shown) :]
        begins = [end for end in range(len(text) + 1) if begins_a_stop(text[end:], stops)]
        assert held == text[min(begins) :]
        assert matcher.flush() == held
        assert matcher.flush() == ""


def begins_a_stop(text: str, stops: list[str]) -> bool:
    """True for the empty text too."""
    return not text or any(stop.startswith(text) for stop in stops)


def test_a_stop_that_spans_pieces_is_not_shown() -> None:
    """The beginning of a stop waits until it is known to be none."""
    matcher = StopMatcher(["</answer>", "###"])
    assert matcher.push("a <b> </ans") == ("a <b> ", False)
    assert matcher.push("wers> ##") == ("</answers> ", False)
    assert matcher.push("#tail") == ("", True)
