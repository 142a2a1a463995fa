"""The queues before the workers."""

from __future__ import annotations

from longspan.server.metrics.families import Families
from longspan.server.queue.stats import DispatcherStats


class QueueMetrics:
    """Sampled; one queue a role."""

    def __init__(self, families: Families) -> None:
        self._jobs = families.gauge(
            "longspan_queue_jobs",
            "Jobs that no worker has, or that one has and has computed nothing of.",
            "role",
        )
        self._tokens = families.gauge("longspan_queue_tokens", "Their tokens.", "role")
        self._age = families.gauge(
            "longspan_queue_oldest_age_seconds",
            "How long the oldest of them has waited; 0 where none waits.",
            "role",
        )

    def sample(self, role: str, stats: DispatcherStats) -> None:
        """A queue as it is now."""
        self._jobs.labels(role).set(stats.unbegun_jobs)
        self._tokens.labels(role).set(stats.unbegun_tokens)
        self._age.labels(role).set(stats.oldest_age_s)
