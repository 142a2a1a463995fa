"""The worker's log on standard error, in lines that the server reads and logs again."""

from __future__ import annotations

import logging
import sys


class LineFormatter(logging.Formatter):
    """``LEVEL logger: text`` on every line, those of a traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        """One or more lines."""
        start = f"{record.levelname} {record.name}: "
        return "\n".join(start + line for line in super().format(record).splitlines())


def log_to_stderr(level: str) -> None:
    """Write everything from ``level`` on; called once, by the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
