"""One JSON object on each line of standard output.

    {"event": "progress", "stage": "indexing", "bytes_received": 57653, ...}
    {"event": "reasoning", "text": "..."}
    {"event": "delta", "text": "..."}
    {"event": "citation", "index": 1, "document_id": "...", "span": {"start": 0, "end": 9}, ...}
    {"event": "unverified", "quote": "..."}
    {"event": "completed", "finish_reason": "stop", "usage": {...}, "cache": {...}, ...}
    {"event": "document", "document_id": "...", "title": "...", "create_time": "...", ...}
    {"event": "deleted", "document_id": "..."}
    {"event": "rebuilt", "document_id": "...", "tokens": 1536}
    {"event": "cache_stats", "kv": {...}, "workers": [...], "held": {...}}
    {"event": "cache_verified", "checked": 120, "damaged": 0, ...}
    {"event": "cache_cleared", "pages": 120, "bytes": 31457280}

The other names are the attributes of the client's classes of the same names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from enum import Enum
from types import TracebackType
from typing import Any, Self, TextIO

from longspan.client._cache_types import CacheCleared, CacheStats, CacheVerified
from longspan.client._cli.bars import Bars
from longspan.client._types import (
    Citation,
    Completed,
    Document,
    Event,
    Progress,
    Reasoning,
    Rebuilt,
    TextDelta,
    UnverifiedQuote,
)

_NAMES: Mapping[type[Event], str] = {
    Progress: "progress",
    Rebuilt: "rebuilt",
    Reasoning: "reasoning",
    TextDelta: "delta",
    Citation: "citation",
    UnverifiedQuote: "unverified",
    Completed: "completed",
}


class JsonLines:
    """Writes everything as it comes."""

    def __init__(self, out: TextIO, bars: Bars | None) -> None:
        self._out = out
        self._bars = bars

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def event(self, event: Event) -> None:
        """Any event."""
        if isinstance(event, Progress) and self._bars is not None:
            self._bars.show(event)
        self._write(_NAMES[type(event)], asdict(event))

    def document(self, document: Document) -> None:
        """A document."""
        self._write("document", asdict(document))

    def row(self, document: Document) -> None:
        """A document of a list."""
        self.document(document)

    def details(self, document: Document) -> None:
        """A document; there is nothing more to tell."""
        self.document(document)

    def deleted(self, document_id: str) -> None:
        """A document is gone."""
        self._write("deleted", {"document_id": document_id})

    def cache_stats(self, stats: CacheStats) -> None:
        """What is kept."""
        self._write("cache_stats", asdict(stats))

    def cache_verified(self, verified: CacheVerified) -> None:
        """What was found on disk."""
        self._write("cache_verified", asdict(verified))

    def cache_cleared(self, cleared: CacheCleared) -> None:
        """What was dropped."""
        self._write("cache_cleared", asdict(cleared))

    def _write(self, name: str, fields: dict[str, Any]) -> None:
        line = json.dumps({"event": name, **fields}, ensure_ascii=False, default=_plain)
        self._out.write(f"{line}\n")
        self._out.flush()


def _plain(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    assert isinstance(value, datetime)
    return value.isoformat()
