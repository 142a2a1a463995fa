"""Why a worker cannot start, and the exit status that says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

CANNOT = "the model cannot be loaded:"
EXIT_BAD_MODEL = 3
"""Exit status of a start that would fail again: the parent must not retry it."""

EXIT_NO_MEMORY = 4
"""Exit status of a start that may succeed when others have given memory back."""

OUT_OF_MEMORY = "out of memory"
HOST_OUT_OF_MEMORY = "allocate memory"
"""What torch says of the host's memory; of a device's it says the former."""


class StartFailure(Exception):
    """The worker cannot start as configured; the message is one line for the operator.

    Attributes:
        exit_status: what the process ends with.
    """

    exit_status = EXIT_BAD_MODEL


class NoMemory(StartFailure):
    """There is too little memory at the moment."""

    exit_status = EXIT_NO_MEMORY


class UnforeseenFailure(StartFailure):
    """Loading broke where nobody expected it; the cause tells where."""


@contextmanager
def loading() -> Iterator[None]:
    """Whatever breaks in here would break again, and is told instead of retried for ever.

    Raises:
        StartFailure: as it was raised, or made of any other exception.
    """
    try:
        yield
    except StartFailure:
        raise
    except Exception as error:  # the edge of the process: a model's files can break anything
        raise _failure(error) from error


def _failure(error: Exception) -> StartFailure:
    reason = str(error).strip().partition("\n")[0]
    if OUT_OF_MEMORY in reason:
        return NoMemory(f"{CANNOT} {reason}")
    full = isinstance(error, MemoryError) or HOST_OUT_OF_MEMORY in reason
    kind = OUT_OF_MEMORY if full else type(error).__name__
    line = f"{CANNOT} {kind}: {reason}" if reason else f"{CANNOT} {kind}"
    return NoMemory(line) if full else UnforeseenFailure(line)
