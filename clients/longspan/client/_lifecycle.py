"""The life of a client."""

from __future__ import annotations

from enum import Enum


class ClientState(Enum):
    """A client's connection."""

    # Nothing has been asked yet, so nothing needs closing.
    UNOPENED = "unopened"
    OPENED = "opened"
    CLOSED = "closed"
