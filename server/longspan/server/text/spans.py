"""A place in a document."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """Bytes ``[start, end)`` of a document."""

    start: int
    end: int
