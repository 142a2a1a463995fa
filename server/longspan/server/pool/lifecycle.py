"""The life of one worker process.

    STARTING ──▶ READY              the first event was Ready
    STARTING, READY ──▶ DRAINING    told to stop, or dying: takes no more commands
    DRAINING ──▶ DEAD               gone; another process may take its place
    DRAINING ──▶ FAILED             gone, and a restart would not help

``MOVES`` is the whole truth; any other move raises ``IllegalMove``.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

BAD_MODEL_STATUS = 3
NO_MEMORY_STATUS = 4


class WorkerState(Enum):
    """Where a worker process stands."""

    STARTING = auto()
    READY = auto()
    DRAINING = auto()
    DEAD = auto()
    FAILED = auto()


MOVES: Mapping[WorkerState, frozenset[WorkerState]] = {
    WorkerState.STARTING: frozenset({WorkerState.READY, WorkerState.DRAINING}),
    WorkerState.READY: frozenset({WorkerState.DRAINING}),
    WorkerState.DRAINING: frozenset({WorkerState.DEAD, WorkerState.FAILED}),
    WorkerState.DEAD: frozenset(),
    WorkerState.FAILED: frozenset(),
}


class IllegalMove(Exception):
    """Our code tried a move that the table does not have."""


def moved(state: WorkerState, to: WorkerState) -> WorkerState:
    """The new state.

    Raises:
        IllegalMove: the table has no such move.
    """
    if to not in MOVES[state]:
        raise IllegalMove(f"{state.name} to {to.name}")
    return to


class DeathCause(Enum):
    """Which signal told of the death first."""

    EXITED = "exited"
    STREAM_ENDED = "ended its stream"
    SILENT = "sent no heartbeat"
    HUNG = "stayed in one step"
    START_TIMEOUT = "was not ready in time"
    REFUSED = "was refused"
    STOPPED = "was stopped"


class RestartReason(StrEnum):
    """Why a process had to be replaced, for those who count."""

    EXIT = "exit"
    SIGNAL = "signal"
    HANG = "hang"
    START_FAILED = "start_failed"


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker process ended.

    Attributes:
        exit_status: as ``subprocess`` has it, negative for a signal; None when it never ran.
        detail: the last line of its standard error, or why it was refused.
        was_ready: it had taken commands.
    """

    cause: DeathCause
    exit_status: int | None
    detail: str
    was_ready: bool = True

    @property
    def by_hand(self) -> bool:
        """True where somebody may have killed the process that did nothing wrong itself."""
        killed = self.exit_status == -signal.SIGKILL
        return killed and self.cause in (DeathCause.EXITED, DeathCause.STREAM_ENDED)

    @property
    def final(self) -> bool:
        """True when a restart would not help."""
        return self.cause is DeathCause.REFUSED or (
            self.cause is not DeathCause.STOPPED and self.exit_status == BAD_MODEL_STATUS
        )

    @property
    def lacks_memory(self) -> bool:
        """True where it found too little memory when it started."""
        return self.cause is not DeathCause.STOPPED and self.exit_status == NO_MEMORY_STATUS

    @property
    def restart_reason(self) -> RestartReason:
        """Why another process takes its place."""
        if not self.was_ready:
            return RestartReason.START_FAILED
        if self.cause in (DeathCause.SILENT, DeathCause.HUNG):
            return RestartReason.HANG
        by_signal = self.exit_status is not None and self.exit_status < 0
        return RestartReason.SIGNAL if by_signal else RestartReason.EXIT

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"the worker {self.cause.value} (exit status {self.exit_status}){detail}"
