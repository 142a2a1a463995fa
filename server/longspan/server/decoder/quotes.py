"""Finds quotations in an answer while it streams."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Longer ones are not followed: a mark that nobody closes holds back no more than this.
LONGEST_CHARS = 4096
DEEPEST = 8
# Less is a term or a word in scare quotes, not a quotation.
LEAST_WORDS = 3
LEAST_CHARS = 12
LEAST_IDEOGRAPHS = 6
# Scripts without spaces between words.
UNSPACED_CHARS = 40
_IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]")
_STRAIGHT = '"'
_CLOSERS = {
    _STRAIGHT: '"”',
    "“": '”"',
    "„": '“”"',
    "«": "»",
    "»": "«",
    "「": "」",
    "『": "』",
}
_BEFORE_OPENING = frozenset("([{<—–-―‘“«「『…:=,;/|*_>（【：，。、；")
_AFTER_CLOSING = frozenset(".,;:!?)]}>…’”»」』—–―*_|/（）】：，。、；！？")


def is_quotation(text: str) -> bool:
    """True for text long enough to have been taken from somewhere."""
    text = text.strip()
    spaced = len(text) >= LEAST_CHARS and len(text.split()) >= LEAST_WORDS
    ideographs = len(_IDEOGRAPHS.findall(text))
    return spaced or len(text) >= UNSPACED_CHARS or ideographs >= LEAST_IDEOGRAPHS


@dataclass(slots=True)
class _Open:
    """A quotation that is not closed yet.

    Attributes:
        mark: that opened it.
        start: of its text, in the held text.
        inner: quotations closed within it; they count if it is never closed.
    """

    mark: str
    start: int
    inner: list[str] = field(default_factory=list)


class QuoteScanner:
    """Takes the answer in any pieces and gives each quotation when it is closed.

    Marks: “ ”, „ “, " ", « », » «, 「 」, 『 』; single ones are apostrophes too often. Of
    quotations within each other the outermost counts. A straight mark opens or closes by its
    neighbours, so that one that is never closed does not turn the others around; a blank line
    ends it, too. What is short (``is_quotation``) is no quotation.
    """

    def __init__(self) -> None:
        self._open: list[_Open] = []
        # Text since the outermost open mark.
        self._held: list[str] = []
        self._previous = " "
        # A straight mark waits for the character that follows it.
        self._undecided = False
        self._blank_line = False
        self._found: list[str] = []

    def push(self, text: str) -> list[str]:
        """The quotations that are certain after ``text``, without their marks."""
        for character in text:
            self._take(character)
        return self._taken()

    def finish(self) -> list[str]:
        """The rest. The scanner is used up."""
        if self._undecided:
            self._decide(" ")
        while self._open:
            self._abandon()
        return self._taken()

    def _taken(self) -> list[str]:
        found, self._found = self._found, []
        return found

    def _take(self, character: str) -> None:
        if self._undecided:
            self._decide(character)
        if character == _STRAIGHT:
            self._undecided = True
        else:
            self._place(character)
            self._previous = character
        self._watch_lines(character)

    def _decide(self, following: str) -> None:
        """Whether the straight mark between ``_previous`` and ``following`` opens or closes."""
        self._undecided = False
        inside = self._closable(_STRAIGHT) is not None
        may_open = not following.isspace() and (
            self._previous.isspace() or self._previous in _BEFORE_OPENING
        )
        may_close = not self._previous.isspace() and (
            following.isspace() or following in _AFTER_CLOSING
        )
        if may_open == may_close:
            may_close = inside
            # An inch or a second is behind its number.
            may_open = not inside and not self._previous.isalnum() and not following.isspace()
            may_open |= not inside and _IDEOGRAPHS.match(self._previous) is not None
        if may_open:
            self._begin(_STRAIGHT)
        elif not (may_close and self._close(_STRAIGHT)):
            self._hold(_STRAIGHT)
        self._previous = _STRAIGHT

    def _place(self, character: str) -> None:
        """Any character but a straight mark."""
        if self._close(character):
            return
        behind_word = not self._previous.isspace()
        if character in _CLOSERS and not (character == "»" and behind_word):
            self._begin(character)
        else:
            self._hold(character)

    def _hold(self, character: str) -> None:
        if not self._open:
            return
        self._held.append(character)
        while len(self._held) > LONGEST_CHARS:
            self._abandon()

    def _begin(self, mark: str) -> None:
        self._hold(mark)
        if len(self._open) == DEEPEST:
            self._abandon()
        self._open.append(_Open(mark, len(self._held)))

    def _closable(self, character: str) -> int | None:
        """The innermost open quotation that ``character`` can close."""
        for index in range(len(self._open) - 1, -1, -1):
            if character in _CLOSERS[self._open[index].mark]:
                return index
        return None

    def _close(self, character: str) -> bool:
        index = self._closable(character)
        if index is None:
            return False
        text = "".join(self._held[self._open[index].start :])
        del self._open[index:]
        found = self._open[-1].inner if self._open else self._found
        if is_quotation(text):
            found.append(text)
        if self._open:
            self._hold(character)
        else:
            self._held.clear()
        return True

    def _abandon(self) -> None:
        """Take the outermost mark for no mark."""
        outermost = self._open.pop(0)
        self._found += outermost.inner
        start = self._open[0].start if self._open else len(self._held)
        del self._held[:start]
        for one in self._open:
            one.start -= start

    def _watch_lines(self, character: str) -> None:
        if character == "\n":
            while self._blank_line and self._open and self._open[0].mark == _STRAIGHT:
                self._abandon()
            self._blank_line = True
        elif not character.isspace():
            self._blank_line = False
