"""The time that one request waits in the queue, as spans: one for each worker that it gets."""

from __future__ import annotations

from opentelemetry.trace import Span

from longspan.server.tracing import names
from longspan.server.tracing.spans import Place


class WaitingSpan:
    """Begins to wait when it is made; ends when its caller goes."""

    def __init__(self) -> None:
        self._place = Place.here()
        self._attempt = 0
        self._span: Span | None = None
        self._begin()

    def given(self, worker: str) -> dict[str, str]:
        """A worker has it; returns the headers by which that one's spans belong here."""
        if self._span is not None:
            self._span.set_attribute(names.WORKER, worker)
        self.left()
        return self._place.carrier()

    def lost(self, worker: str) -> None:
        """That worker died: it waits again."""
        self._place.event(names.WORKER_LOST, {names.WORKER: worker})
        self._begin()

    def left(self) -> None:
        """It waits no more."""
        if self._span is not None:
            self._span.end()
            self._span = None

    def _begin(self) -> None:
        self._attempt += 1
        self._span = self._place.start(names.QUEUE, {names.ATTEMPT: self._attempt})
