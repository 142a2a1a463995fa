"""The worker processes: how many are well, which had to be replaced, what they take."""

from __future__ import annotations

from collections.abc import Mapping

from longspan.server.metrics.families import Families
from longspan.server.pool.lifecycle import RestartReason

STATES = ("ready", "starting", "down")


class WorkerMetrics:
    """One set of processes a role."""

    def __init__(self, families: Families) -> None:
        self._workers = families.gauge(
            "longspan_workers", "Worker processes: ready, starting, or down.", "role", "state"
        )
        self._restarts = families.counter(
            "longspan_worker_restarts_total",
            "Processes started in place of dead ones: that ended by themselves (exit) or by a "
            "signal, that hung, or that never became ready (start_failed).",
            "role",
            "reason",
        )
        self._memory = families.gauge(
            "longspan_worker_memory_bytes", "Resident memory of all of a role's processes.", "role"
        )

    def expect(self, role: str) -> None:
        """Show a role's restarts from the beginning."""
        for reason in RestartReason:
            self._restarts.labels(role, reason)

    def restarted(self, role: str, reason: RestartReason) -> None:
        """A process takes the place of a dead one."""
        self._restarts.labels(role, reason).inc()

    def sample(self, role: str, states: Mapping[str, int], memory_bytes: int) -> None:
        """The processes as they are now."""
        for state in STATES:
            self._workers.labels(role, state).set(states.get(state, 0))
        self._memory.labels(role).set(memory_bytes)
