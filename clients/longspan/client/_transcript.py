"""Delivers an answer once, although it may be streamed more than once."""

from __future__ import annotations

from longspan.client._events import Accepted, Ack, Message, Stored
from longspan.client._exceptions import AnswerChanged
from longspan.client._types import Answer, Citation, Completed, Event, Progress, TextDelta


class Transcript:
    """The answer delivered so far.

    Answers are deterministic: a repeated request streams the same text and citations. What
    was delivered before is compared and dropped, however the text is cut this time.
    """

    def __init__(self) -> None:
        self._text: list[str] = []
        self._length = 0
        self._seen = 0
        self._unchecked = ""
        self._citations: list[Citation] = []
        self._seen_citations = 0
        self._completed: Completed | None = None

    def reopen(self) -> None:
        """The request is sent again; its answer comes from the beginning."""
        self._unchecked = "".join(self._text)
        self._seen = 0
        self._seen_citations = 0

    def admit(self, message: Message | None) -> Event | None:
        """What of a message is new to the caller; None when nothing is.

        Raises:
            AnswerChanged: it differs from what was delivered.
        """
        match message:
            case TextDelta(text):
                return self._admit_text(text)
            case Citation():
                return self._admit_citation(message)
            case Completed():
                return self._admit_completed(message)
            case Progress():
                return message
            case Accepted():
                # Each stream of an upload begins so.
                self.reopen()
                return None
            case Ack() | Stored() | None:
                return None

    def answer(self) -> Answer | None:
        """The whole answer, when it is complete."""
        if self._completed is None:
            return None
        return Answer("".join(self._text), tuple(self._citations), self._completed)

    def _admit_text(self, text: str) -> TextDelta | None:
        known = self._unchecked[self._seen : self._seen + len(text)]
        if not text.startswith(known):
            raise AnswerChanged(f"the answer changed after {self._seen} characters")
        self._seen += len(text)
        fresh = text[len(known) :]
        if not fresh:
            return None
        self._text.append(fresh)
        self._length += len(fresh)
        return TextDelta(fresh)

    def _admit_citation(self, citation: Citation) -> Citation | None:
        position = self._seen_citations
        self._seen_citations += 1
        if position >= len(self._citations):
            self._citations.append(citation)
            return citation
        if _what(citation) != _what(self._citations[position]):
            raise AnswerChanged(f"citation {position + 1} changed")
        return None

    def _admit_completed(self, completed: Completed) -> Completed:
        if self._seen < self._length or self._seen_citations < len(self._citations):
            raise AnswerChanged("the answer became shorter")
        self._completed = completed
        return completed


def _what(citation: Citation) -> tuple[object, ...]:
    # The score may differ in its last bits when a text shares its batch with others.
    return citation.index, citation.document_id, citation.span, citation.quote
