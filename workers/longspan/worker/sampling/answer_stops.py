"""Stops that count in the answer alone, not in the reasoning before it."""

from __future__ import annotations

from collections.abc import Sequence

from longspan.worker.sampling.stops import StopMatcher


class AnswerStops:
    """Looks for stop strings from where the answer begins; everything before it is shown.

    White space between the mark and the answer belongs to neither: models put blank lines there,
    and a stop of a line's end would leave nothing. How the text was cut into pieces does not
    matter. Linear in the text.

    Args:
        texts: stop strings, none empty.
        answer_begins: the mark behind which the answer begins; empty: the text is all answer.
    """

    def __init__(self, texts: Sequence[str], answer_begins: str) -> None:
        self._stops = StopMatcher(texts)
        self._mark = answer_begins
        # The end of the text that may be part of the mark.
        self._tail = ""
        self._blank = bool(answer_begins)

    def counts(self, *, blank: bool) -> bool:
        """Whether the next token can be a stop; ``blank`` where it adds white space only."""
        return not self._mark and not (self._blank and blank)

    def push(self, text: str) -> tuple[str, bool]:
        """More text: returns what is safe to show now, and whether a stop was found."""
        answer = self._answer(text)
        shown, stopped = self._stops.push(answer)
        return text[: len(text) - len(answer)] + shown, stopped

    def flush(self) -> str:
        """What was held back; no stop can begin in it any more, as the text is at its end."""
        return self._stops.flush()

    def _answer(self, text: str) -> str:
        """The end of ``text`` that is answer."""
        if self._mark:
            seen = self._tail + text
            _, found, text = seen.partition(self._mark)
            if not found:
                self._tail = seen[max(0, len(seen) - len(self._mark) + 1) :]
                return ""
            self._mark = self._tail = ""
        if self._blank:
            text = text.lstrip()
            self._blank = not text
        return text
