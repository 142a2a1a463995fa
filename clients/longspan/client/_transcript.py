"""Delivers an answer once, although it may be streamed more than once.

When a stream breaks in the middle of an answer, the same request is sent again, and the answer
comes from its beginning. An extractive answer is a function of the request. A generated one is
too, given the seed that every request carries (one is drawn where the caller names none), but
only up to rounding: another batch, or another machine, may tip a choice between two tokens that
are nearly as likely. So nothing is taken on trust: what was delivered is compared with what comes
again, and dropped while it is equal. The first difference is ``AnswerChanged``; two answers are
never mixed. Ask again for a whole one.
"""

from __future__ import annotations

from longspan.client._delivered import DeliveredItems, DeliveredText
from longspan.client._events import Accepted, Ack, Message, Stored
from longspan.client._exceptions import AnswerChanged
from longspan.client._types import (
    Answer,
    Citation,
    Completed,
    Event,
    Progress,
    Reasoning,
    Rebuilt,
    TextDelta,
    UnverifiedQuote,
)


class Transcript:
    """The answer delivered so far: text, reasoning, citations and unverified quotations."""

    def __init__(self) -> None:
        self._text = DeliveredText("answer")
        self._reasoning = DeliveredText("reasoning")
        self._citations = DeliveredItems("citation", _place)
        self._unverified = DeliveredItems("unverified quotation", _quote)
        self._rebuilt = False
        self._completed: Completed | None = None

    def reopen(self) -> None:
        """The request is sent again; its answer comes from the beginning."""
        for part in self._parts():
            part.reopen()

    def admit(self, message: Message | None) -> Event | None:
        """What of a message is new to the caller; None when nothing is.

        Raises:
            AnswerChanged: it differs from what was delivered.
        """
        match message:
            case TextDelta(text):
                return TextDelta(fresh) if (fresh := self._text.admit(text)) else None
            case Reasoning(text):
                return Reasoning(fresh) if (fresh := self._reasoning.admit(text)) else None
            case Citation():
                return message if self._citations.admit(message) else None
            case UnverifiedQuote():
                return message if self._unverified.admit(message) else None
            case Completed():
                return self._complete(message)
            case Progress():
                return message
            case Rebuilt():
                # A repeated request may find what the first one computed, or lose it again.
                rebuilt, self._rebuilt = self._rebuilt, True
                return None if rebuilt else message
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
        return Answer(
            text=self._text.text,
            citations=self._citations.items,
            completed=self._completed,
            reasoning=self._reasoning.text,
            unverified=self._unverified.items,
        )

    def _complete(self, completed: Completed) -> Completed:
        if not all(part.caught_up for part in self._parts()):
            raise AnswerChanged("the answer became shorter")
        self._completed = completed
        return completed

    def _parts(
        self,
    ) -> tuple[DeliveredText | DeliveredItems[Citation] | DeliveredItems[UnverifiedQuote], ...]:
        return self._text, self._reasoning, self._citations, self._unverified


def _place(citation: Citation) -> tuple[object, ...]:
    # The score may differ in its last bits when a text shares its batch with others.
    return citation.index, citation.document_id, citation.span, citation.quote


def _quote(unverified: UnverifiedQuote) -> str:
    return unverified.quote
