"""Finds stop strings in a text that arrives in pieces, and holds back what may begin one."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Splits a growing text into what is safe to show and what may be the beginning of a stop.

    The text ends where a stop is first complete, and is cut where that stop begins; where
    several are complete at once, the longest counts. How the text was cut into pieces does not
    matter. Linear in the text.

    Args:
        texts: stop strings, none empty.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._patterns = [_Pattern(text) for text in texts]
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """More text: returns what is safe to show now, and whether a stop was found."""
        if not self._patterns:
            return text, False
        for end, character in enumerate(text, 1):
            found = [p.length for p in self._patterns if p.advance(character)]
            if found:
                shown = self._held + text[:end]
                self._held = ""
                return shown[: -max(found)], True
        shown = self._held + text
        safe = len(shown) - max(pattern.matched for pattern in self._patterns)
        self._held = shown[safe:]
        return shown[:safe], False

    def flush(self) -> str:
        """What was held back; no stop can begin in it any more, as the text is at its end."""
        held, self._held = self._held, ""
        return held


class _Pattern:
    """One string and how much of it the text ends with (Knuth, Morris and Pratt, 1977)."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._borders = _borders(text)
        self.length = len(text)
        self.matched = 0

    def advance(self, character: str) -> bool:
        """Read one character; True when the text now ends with the whole string."""
        matched = self.matched
        while matched and self._text[matched] != character:
            matched = self._borders[matched - 1]
        self.matched = matched + (self._text[matched] == character)
        return self.matched == self.length


def _borders(text: str) -> list[int]:
    """For each prefix, the length of its longest proper suffix that is a prefix as well."""
    borders = [0]
    for character in text[1:]:
        border = borders[-1]
        while border and text[border] != character:
            border = borders[border - 1]
        borders.append(border + (text[border] == character))
    return borders
