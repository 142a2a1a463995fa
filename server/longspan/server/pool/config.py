"""What a pool of local workers needs to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from longspan.server.pool.model_info import ModelInfo

MESSAGE_BYTES = 8 << 20

PAUSED_FACTOR = 16
"""Jobs that a worker holds at most, in windows: most of them wait for their clients."""

MOST_QUESTIONS = 64
"""Questions about what it keeps that one worker is asked at once; further ones are not asked."""


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """The pool's settings; times in seconds.

    Attributes:
        command: makes a worker's argument vector from the socket path it must listen on and
            its slot, from 0, by which it may be bound to a device.
        again: more arguments for a worker that starts when another has been ready, from what
            that one serves: it must not come out smaller.
        template: the socket of a process whose forks the workers are, if it answers
            (``longspan.worker.template``); what ``command`` says then counts from the
            fourth argument on.
        workers: processes to keep running, one a slot.
        window_tokens, window_jobs: how much one worker is given at once. What it does not
            have yet is still ordered by the queue, so a larger window is less fair; a
            window takes work while it is not full, so it may be exceeded by one job.
        runtime_dir: where the socket directory is made; None is the system's temporary one.
    """

    command: Callable[[Path, int], Sequence[str]]
    again: Callable[[ModelInfo], Sequence[str]] = lambda model: ()
    template: Path | None = None
    workers: int = 1
    window_tokens: int = 2 * 16384
    window_jobs: int = 256
    start_timeout_s: float = 60.0
    heartbeat_timeout_s: float = 3.0
    step_timeout_s: float = 60.0
    stop_grace_s: float = 5.0
    first_backoff_s: float = 0.1
    longest_backoff_s: float = 10.0
    healthy_s: float = 30.0
    runtime_dir: Path | None = None

    @property
    def held_jobs(self) -> int:
        """Jobs that one worker holds at most, those that wait for their clients included."""
        return PAUSED_FACTOR * self.window_jobs
