"""The checks of one answer's quotations as one span, however many they are."""

from __future__ import annotations

from opentelemetry.trace import Span

from longspan.server.tasks.answer import Citation, UnverifiedQuote
from longspan.server.tracing import names
from longspan.server.tracing.spans import Place


class CheckingSpan:
    """From the first quotation that is checked to the end of the answer."""

    def __init__(self) -> None:
        self._place = Place.here()
        self._span: Span | None = None
        self._verified = 0
        self._unverified = 0

    def begin(self) -> None:
        """A quotation is being checked."""
        if self._span is None:
            self._span = self._place.start(names.CHECK)

    def checked(self, found: Citation | UnverifiedQuote) -> None:
        """What the documents said to it."""
        if isinstance(found, Citation):
            self._verified += 1
        else:
            self._unverified += 1

    def end(self) -> None:
        """The answer is over."""
        if self._span is not None:
            self._span.set_attribute(names.VERIFIED, self._verified)
            self._span.set_attribute(names.UNVERIFIED, self._unverified)
            self._span.end()
