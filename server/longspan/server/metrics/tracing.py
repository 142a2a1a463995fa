"""Whether traces are exported, and how many spans were."""

from __future__ import annotations

from longspan.server.metrics.families import Families


class TracingMetrics:
    """Counted by whoever exports spans, from any thread."""

    def __init__(self, families: Families) -> None:
        self.exported = families.counter(
            "longspan_spans_exported_total", "Spans that a collector has taken."
        )
        self.dropped = families.counter(
            "longspan_spans_dropped_total", "Spans that were lost: no room, or no collector."
        )
        self.enabled = families.gauge("longspan_tracing_enabled", "1 where spans are exported.")
