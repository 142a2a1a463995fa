"""Calls of the API: how many, how long, how they ended."""

from __future__ import annotations

from longspan.server.metrics.exemplar import exemplar
from longspan.server.metrics.families import Families

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Upper bounds for what may take anything between a look-up and a long document."""


class RpcMetrics:
    """One count at the beginning of a call and one observation at its end."""

    def __init__(self, families: Families) -> None:
        self._started = families.counter(
            "longspan_rpc_started_total", "Calls that reached a handler.", "method"
        )
        self._duration = families.histogram(
            "longspan_rpc_duration_seconds",
            "Duration of calls, uploads included, by the name of their gRPC status.",
            SECONDS,
            "method",
            "status",
        )

    def started(self, method: str) -> None:
        """A call begins; ``method`` is ``package.Service/Method``."""
        self._started.labels(method).inc(exemplar=exemplar())

    def ended(self, method: str, status: str, seconds: float) -> None:
        """A call has ended."""
        self._duration.labels(method, status).observe(seconds, exemplar())
