"""Sentences of a text that is still arriving, with exact offsets.

Text is taken line by line. A blank line, a Markdown heading, a list item or a table row
ends the block before it; sentences are found inside blocks. A block without an end is cut
after ``BLOCK_CHARS``. What is decided depends on the text alone, never on its chunking.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

BLOCK_CHARS = 4000
SENTENCE_CHARS = 2000
HEADING_CHARS = 90
# No abbreviation and no number of a clause is longer.
WORD_CHARS = 40

_HEADING = re.compile(r"#{1,6}[ \t]+\S")
_ITEM = re.compile(
    r"([-*+•]|\(?[0-9]{1,3}[.)]|\(?[a-zA-Z][.)])[ \t]+\S"  # "- x", "3. x", "(a) x"
    r"|（[一二三四五六七八九十0-9]+）"
    r"|[0-9]{1,3}(\.[0-9]{1,3})+[ \t]+[^\sa-z]"  # "7.2 Fees", but not "3.5 million"
)
_SEPARATOR = re.compile(r"[ \t|:+=_*~-]+")
_ENDS = re.compile(
    # Followed by white space. A run is tried once, from its start: its time stays linear.
    r"(?<![.!?])[.!?]++[\"'”’)\]»]*+(?=\s)"
    r"|[。！？；…]+[”’」』）】》\"')]*"  # ends by itself
)
_ABBREVIATIONS = frozenset(
    re.split(
        r"\s+",
        """mr mrs ms dr prof sr jr st inc ltd co corp llc plc no nos art arts sec secs fig figs vs
        etc e.g i.e cf al p pp vol approx dept est ca viz sch para ch ed eds gen col lt gov sen
        rep hon jan feb mar apr jun jul aug sep sept oct nov dec""",
    )
)
_LAST_WORD = re.compile(r"[^\s(\[“\"'‘]+$")


class Kind(Enum):
    """What a sentence is part of."""

    PROSE = "prose"
    HEADING = "heading"
    ROW = "row"


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence, white space around it left out.

    Attributes:
        start_char, end_char: code points of the document.
        start_byte, end_byte: bytes of the document.
        text: the sentence.
        ends_block: the last one before a blank line, heading, item or table; rows of a
            table follow each other, so none of them ends a block.
    """

    start_char: int
    end_char: int
    start_byte: int
    end_byte: int
    kind: Kind
    text: str
    ends_block: bool


class SentenceSplitter:
    """Feeds on text, yields the sentences that no later text can change."""

    def __init__(self) -> None:
        self._waiting = ""
        self._inside_line = False
        self._block = ""
        self._block_char = 0
        self._block_byte = 0

    def feed(self, text: str) -> list[Sentence]:
        """Take more text."""
        waiting = self._waiting + text
        found: list[Sentence] = []
        start = 0
        while True:
            end = waiting.find("\n", start, start + BLOCK_CHARS) + 1
            if end == 0:
                if len(waiting) - start < BLOCK_CHARS:
                    break
                end = start + BLOCK_CHARS
            found += self._line(waiting[start:end])
            start = end
        self._waiting = waiting[start:]
        return found

    def finish(self) -> list[Sentence]:
        """The remaining sentences. The splitter is used up."""
        found = self._line(self._waiting) if self._waiting else []
        return found + self._flush()

    def _line(self, line: str) -> list[Sentence]:
        """Take a line, or the next part of one that is longer than a block."""
        goes_on, self._inside_line = self._inside_line, not line.endswith("\n")
        return self._extend(line) if goes_on else self._start(line)

    def _start(self, line: str) -> list[Sentence]:
        stripped = line.strip()
        if not stripped:
            return self._skip(line)
        if _HEADING.match(stripped):
            return self._alone(line, Kind.HEADING, ends_block=True)
        if stripped.startswith("|"):
            if _SEPARATOR.fullmatch(stripped):
                return self._skip(line)
            return self._alone(line, Kind.ROW, ends_block=False)
        found = self._flush() if _ITEM.match(stripped) else []
        return found + self._extend(line)

    def _extend(self, line: str) -> list[Sentence]:
        self._block += line
        return self._relieve() if len(self._block) >= BLOCK_CHARS else []

    def _skip(self, line: str) -> list[Sentence]:
        found = self._flush()
        self._advance(line)
        return found

    def _alone(self, line: str, kind: Kind, *, ends_block: bool) -> list[Sentence]:
        found = self._flush()
        self._block = line
        return found + self._take(_cut_long(line, 0, len(line)), kind, ends_block=ends_block)

    def _flush(self) -> list[Sentence]:
        if not self._block:
            return []
        kind = Kind.HEADING if _is_title(self._block) else Kind.PROSE
        return self._take(sentence_spans(self._block), kind, ends_block=True)

    def _relieve(self) -> list[Sentence]:
        """Give away all sentences of a long block but the last, which may go on."""
        *spans, last = sentence_spans(self._block)
        if not spans:
            spans = [last]
        return self._take(spans, Kind.PROSE, ends_block=False)

    def _take(
        self, spans: list[tuple[int, int]], kind: Kind, *, ends_block: bool
    ) -> list[Sentence]:
        """Turn spans at the block's start into sentences; the block keeps the rest."""
        block, found, done = self._block, [], 0
        for start, end in spans:
            text = block[start:end]
            trimmed = text.strip()
            lead = len(text) - len(text.lstrip())
            self._advance(block[done : start + lead])
            if trimmed:
                at_char, at_byte = self._block_char, self._block_byte
                self._advance(trimmed)
                last = ends_block and end == spans[-1][1]
                found.append(
                    Sentence(
                        at_char, self._block_char, at_byte, self._block_byte, kind, trimmed, last
                    )
                )
            done = start + lead + len(trimmed)
        end = spans[-1][1] if spans else 0
        self._advance(block[done:end])
        self._block = block[end:]
        return found

    def _advance(self, text: str) -> None:
        self._block_char += len(text)
        self._block_byte += len(text.encode("utf-8"))


def sentence_spans(block: str) -> list[tuple[int, int]]:
    """Where the sentences of one block lie; together they cover it."""
    spans, start = [], 0
    for match in _ENDS.finditer(block):
        if _is_end(block, start, match):
            spans += _cut_long(block, start, match.end())
            start = match.end()
    if start < len(block):
        if block[start:].strip() or not spans:
            spans += _cut_long(block, start, len(block))
        else:
            spans[-1] = (spans[-1][0], len(block))
    return spans


def _is_end(block: str, start: int, match: re.Match[str]) -> bool:
    if not match.group().startswith("."):
        return True
    following = block[match.end() : match.end() + 40].lstrip()
    if following[:1].islower():
        return False
    found = _LAST_WORD.search(block, max(start, match.start() - WORD_CHARS), match.start())
    if found is None:
        return True
    word = found.group()
    if len(word) == 1 and word.isalpha() and word.isupper():
        return False
    if not block[start : found.start()].strip() and word.rstrip(".").replace(".", "").isdigit():
        # "7.2. Fees" or "3. Term": the number of what follows.
        return False
    return word.lower() not in _ABBREVIATIONS


def _cut_long(block: str, start: int, end: int) -> list[tuple[int, int]]:
    spans = []
    while end - start > SENTENCE_CHARS:
        cut = max(block.rfind(space, start, start + SENTENCE_CHARS) for space in " \n\t") + 1
        if cut <= start:
            cut = start + SENTENCE_CHARS
        spans.append((start, cut))
        start = cut
    return [*spans, (start, end)]


def _is_title(block: str) -> bool:
    """A short line of its own that does not end like a sentence."""
    title = block.strip()
    return (
        "\n" not in title
        and len(title) <= HEADING_CHARS
        and title[-1:].isalnum()
        and (title[0].isdigit() or title[0].isupper() or title[0] == "第")
    )
