"""The bytes of a span as they arrive; pure."""

from __future__ import annotations

from longspan.client._exceptions import ConnectionLost, ProtocolError
from longspan.client._types import Span


class Fetch:
    """Collects a span in order.

    Args:
        span: None is the whole document.
    """

    def __init__(self, span: Span | None) -> None:
        self._start = 0 if span is None else span.start
        self._end = None if span is None else span.end
        self._data = bytearray()
        self.complete = span is not None and not len(span)

    @property
    def data(self) -> bytes:
        """What came so far."""
        return bytes(self._data)

    @property
    def bounds(self) -> tuple[int, int]:
        """What to ask for now; an end of 0 is the document's end."""
        return self._start + len(self._data), self._end or 0

    def take(self, offset: int, data: bytes) -> None:
        """The next bytes.

        Raises:
            ProtocolError: they do not follow those before.
        """
        if offset != self._start + len(self._data):
            raise ProtocolError(f"bytes at {offset}, expected {self._start + len(self._data)}")
        self._data += data

    def ended(self) -> None:
        """The server has sent everything it was asked for.

        Raises:
            ConnectionLost: it has not.
        """
        if self._end is not None and self._start + len(self._data) < self._end:
            raise ConnectionLost("the server ended the stream too early")
        self.complete = True
