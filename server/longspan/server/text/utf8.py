"""Bytes to text, a chunk at a time."""

from __future__ import annotations

import codecs

from longspan.server.errors import InvalidUtf8


class IncrementalUtf8:
    """Strict UTF-8 over any chunking; a code point may be cut between chunks.

    A byte order mark, NUL and CRLF are text like any other: offsets stay exact.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="strict")
        self._consumed = 0
        self._pending = 0

    def decode(self, data: bytes) -> str:
        """The text that is complete after ``data``.

        Raises:
            InvalidUtf8: naming the first byte, counted from the document's start, that
                cannot be part of it.
        """
        return self._decode(data, final=False)

    def finish(self) -> None:
        """Check that nothing is left over.

        Raises:
            InvalidUtf8: the document ends within a code point.
        """
        self._decode(b"", final=True)

    def _decode(self, data: bytes, *, final: bool) -> str:
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            # The decoder puts the bytes held back before ``data``.
            raise InvalidUtf8(self._consumed - self._pending + error.start) from error
        self._consumed += len(data)
        self._pending = len(self._decoder.getstate()[0])
        return text
