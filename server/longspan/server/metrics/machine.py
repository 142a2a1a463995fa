"""Memory of the machine, and how late the event loop is."""

from __future__ import annotations

from longspan.host.memory import Memory
from longspan.server.metrics.families import Families

LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class MachineMetrics:
    """Sampled."""

    def __init__(self, families: Families) -> None:
        self._used = families.gauge(
            "longspan_memory_used_bytes",
            "Memory taken in the control group, which may be a container, or else on the host; "
            "without what the kernel would give up.",
        )
        self._limit = families.gauge(
            "longspan_memory_limit_bytes", "What it may take at most, likewise."
        )
        self._lag = families.histogram(
            "longspan_event_loop_lag_seconds",
            "How late the server's event loop runs what is due.",
            LAG_S,
        )

    def sample(self, memory: Memory | None) -> None:
        """Memory now; None where the system does not say."""
        if memory is not None:
            self._used.set(memory.used_bytes)
            self._limit.set(memory.limit_bytes)

    def late(self, seconds: float) -> None:
        """Something ran so long after it was due."""
        self._lag.observe(max(seconds, 0.0))
