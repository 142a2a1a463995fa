"""Where the dispatcher's jobs are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
        unbegun_jobs: queued, or in a worker's window where nothing of them has been computed though
            there is something to compute.
        unbegun_tokens: what these cost.
        oldest_age_s: how long the one of these has waited that has waited longest.
        workers: processes that are ready, starting, and down.
    """

    queued_jobs: int
    queued_tokens: int
    in_flight: tuple[InFlight, ...]
    jobs: int
    waiting: int
    restarts: int
    unbegun_jobs: int = 0
    unbegun_tokens: int = 0
    oldest_age_s: float = 0.0
    workers: Mapping[str, int] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """True when nothing is queued, in flight or waited for."""
        in_flight = any(entry.jobs for entry in self.in_flight)
        return not (self.queued_jobs or self.jobs or self.waiting or in_flight)
