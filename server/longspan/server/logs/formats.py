"""Log records as one line of text, or as one JSON object."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from types import TracebackType
from typing import TypeAlias

from longspan.server.logs.context import CONTEXT_FIELDS

ExcInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)

MESSAGE_CHARS = 8_000
EXCEPTION_CHARS = 32_000

USAGE_FIELDS = (
    "status",
    "duration_s",
    "bytes",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "retries",
    "cache",
)
EXTRA_FIELDS = ("error_id", "worker", *USAGE_FIELDS)


class TextFormatter(logging.Formatter):
    """For people: the request's id stands behind the message.

    Nothing in it can end the line, or tell the terminal what to do.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without its exception."""
        request_id = getattr(record, "request_id", "")
        line = _visible(super().formatMessage(record))
        return f"{line} [{request_id}]" if request_id else line

    def formatException(self, ei: ExcInfo) -> str:
        """The traceback, a line for each of its lines."""
        return "\n".join(_visible(line) for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """For programs: one object a line, fields without a value left out."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; long texts are cut."""
        entry: dict[str, object] = {
            "time": _rfc3339(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": _cut(record.getMessage(), MESSAGE_CHARS),
        }
        for name in (*CONTEXT_FIELDS, *EXTRA_FIELDS):
            value = getattr(record, name, None)
            if value is not None and value != "":
                entry[name] = value
        if record.exc_info:
            # The end of a traceback says most.
            entry["exception"] = self.formatException(record.exc_info)[-EXCEPTION_CHARS:]
        # ASCII, so that no text can break a line or the stream's encoding.
        return json.dumps(entry, default=str)


def _visible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[:chars]}..."


def _rfc3339(created_s: float) -> str:
    moment = datetime.fromtimestamp(created_s, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
