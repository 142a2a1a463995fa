"""Why a worker cannot start, and the exit status that says so."""

from __future__ import annotations

EXIT_BAD_MODEL = 3
"""Exit status of a start that would fail again: the parent must not retry it."""


EXIT_NO_MEMORY = 4
"""Exit status of a start that may succeed when others have given memory back."""


class StartFailure(Exception):
    """The worker cannot start as configured; the message is one line for the operator.

    Attributes:
        exit_status: what the process ends with.
    """

    exit_status = EXIT_BAD_MODEL


class NoMemory(StartFailure):
    """There is too little memory at the moment."""

    exit_status = EXIT_NO_MEMORY
