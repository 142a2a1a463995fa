"""Where the server's log goes, and in which form."""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

from longspan.server.logs.context import CallFilter
from longspan.server.logs.formats import JsonFormatter, TextFormatter
from longspan.server.logs.quoting import QuotingFilter

Format = Literal["text", "json"]


def log_to_stderr(level: str, form: Format, stream: TextIO | None = None) -> None:
    """Write everything from ``level`` on to standard error; called once, by the process."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(QuotingFilter())
    handler.addFilter(CallFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
