"""Where the dispatcher's jobs are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class InFlight(NamedTuple):
    """What one worker has; ``used_pages`` as of its last heartbeat."""

    worker: str
    jobs: int
    tokens: int
    used_pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherStats:
    """A snapshot.

    Attributes:
        jobs: queued or in flight; includes cancelled ones a worker has not let go of.
        waiting: callers that have not returned.
        restarts: worker processes started in place of dead ones.
    """

    queued_jobs: int
    queued_tokens: int
    in_flight: tuple[InFlight, ...]
    jobs: int
    waiting: int
    restarts: int

    @property
    def idle(self) -> bool:
        """True when nothing is queued, in flight or waited for."""
        in_flight = any(entry.jobs for entry in self.in_flight)
        return not (self.queued_jobs or self.jobs or self.waiting or in_flight)
