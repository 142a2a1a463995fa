"""Why a worker cannot start, and the exit status that says so."""

from __future__ import annotations

EXIT_BAD_MODEL = 3
"""Exit status of a start that would fail again: the parent must not retry it."""


class StartFailure(Exception):
    """The worker cannot start as configured; the message is one line for the operator."""
