"""Splits what a reasoning model thinks from what it answers, while the text streams."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

START = "<think>"
END = "</think>"
# White space before the first mark; more of it is an answer that begins with white space.
MOST_INDENT = 64


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The next piece of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The next piece of the answer."""

    text: str


Part = Reasoning | Answer


class _State(Enum):
    """Where the text stands; it only moves forward."""

    BEGINNING = auto()
    REASONING_BEGINS = auto()
    REASONING = auto()
    ANSWER_BEGINS = auto()
    ANSWER = auto()


class ReasoningSplitter:
    """Takes text in any pieces; a mark may be cut between them.

    Only the beginning of the text can open a block: ``<think>`` later on is text. White space
    around the marks belongs to neither part. A block that is never closed is all reasoning.

    Args:
        thinks: the prompt has already opened the block; a start mark is passed over then.
        start: mark that opens the block.
        end: mark that closes it.
    """

    def __init__(self, thinks: bool, start: str = START, end: str = END) -> None:
        self._start = start
        self._end = end
        self._thinks = thinks
        self._state = _State.BEGINNING
        # Text that may be part of a mark: shorter than the longer mark and MOST_INDENT.
        self._held = ""

    def push(self, text: str) -> list[Part]:
        """The parts that are certain after ``text``."""
        self._held += text
        return self._parts(final=False)

    def finish(self) -> list[Part]:
        """What was held back. The splitter is used up."""
        return self._parts(final=True)

    def _parts(self, *, final: bool) -> list[Part]:
        parts: list[Part] = []
        while True:
            before = self._state
            parts += self._step(final)
            if self._state is before:
                return parts

    def _step(self, final: bool) -> list[Part]:
        match self._state:
            case _State.BEGINNING:
                return self._begin(final)
            case _State.REASONING_BEGINS:
                return self._skip_space(_State.REASONING)
            case _State.REASONING:
                return self._reason(final)
            case _State.ANSWER_BEGINS:
                return self._skip_space(_State.ANSWER)
            case _State.ANSWER:
                return self._answer()

    def _begin(self, final: bool) -> list[Part]:
        rest = self._held.lstrip()
        if rest.startswith(self._start):
            self._held = rest[len(self._start) :]
            self._state = _State.REASONING_BEGINS
        elif final or not self._start.startswith(rest) or len(self._held) > MOST_INDENT:
            self._state = _State.REASONING_BEGINS if self._thinks else _State.ANSWER
        return []

    def _skip_space(self, following: _State) -> list[Part]:
        self._held = self._held.lstrip()
        if self._held:
            self._state = following
        return []

    def _reason(self, final: bool) -> list[Part]:
        text, mark, rest = self._held.partition(self._end)
        if mark:
            self._held = rest
            self._state = _State.ANSWER_BEGINS
        else:
            keep = 0 if final else _overlap(text, self._end)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return [Reasoning(text)] if text else []

    def _answer(self) -> list[Part]:
        text, self._held = self._held, ""
        return [Answer(text)] if text else []


def _overlap(text: str, mark: str) -> int:
    """Characters at the end of ``text`` that may be the beginning of ``mark``."""
    longest = min(len(text), len(mark) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(mark[:n])), 0)
