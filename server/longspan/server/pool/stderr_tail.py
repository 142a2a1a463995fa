"""The last lines of a process's standard error."""

from __future__ import annotations

from collections import deque

from longspan.server.pool.stderr_line import parse_line


class StderrTail:
    """Splits bytes into lines; bounded in lines and in the length of each.

    It remembers those that may explain a death.
    """

    def __init__(self, *, lines: int = 20, line_bytes: int = 2000) -> None:
        self._line_bytes = line_bytes
        self._partial = b""
        self._lines: deque[str] = deque(maxlen=lines)

    def feed(self, data: bytes) -> list[str]:
        """Add bytes; return the lines that this completed. A long line is cut."""
        *complete, partial = (self._partial + data).split(b"\n")
        self._partial = partial[: self._line_bytes]
        lines = [self._text(line) for line in complete if line.strip()]
        self._lines.extend(line for line in lines if parse_line(line).explains)
        return lines

    def last(self) -> str:
        """The last line, complete or not; empty when there was none."""
        return self._text(self._partial) or (self._lines[-1] if self._lines else "")

    def _text(self, line: bytes) -> str:
        return line[: self._line_bytes].decode("utf-8", "replace").strip()
