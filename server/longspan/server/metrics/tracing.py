"""Whether traces are exported, and how many spans were."""

from __future__ import annotations

from longspan.server.metrics.families import Families


class TracingMetrics:
    """Follows the numbers of whoever exports spans."""

    def __init__(self, families: Families) -> None:
        self.exported = families.counter(
            "longspan_spans_exported_total", "Spans that a collector has taken."
        )
        self.dropped = families.counter(
            "longspan_spans_dropped_total", "Spans that were lost: no room, or no collector."
        )
        self.enabled = families.gauge("longspan_tracing_enabled", "1 where spans are exported.")
        self._seen_exported = self._seen_dropped = 0

    def sample(self, *, enabled: bool, exported: int, dropped: int) -> None:
        """Count what has come to these totals, which only grow."""
        self.enabled.set(enabled)
        self.exported.inc(exported - self._seen_exported)
        self.dropped.inc(dropped - self._seen_dropped)
        self._seen_exported, self._seen_dropped = exported, dropped
