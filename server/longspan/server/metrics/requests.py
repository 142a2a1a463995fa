"""Requests: those admitted, those refused, and what the answered ones waited for."""

from __future__ import annotations

from collections.abc import Collection

from longspan.server.metrics.exemplar import exemplar
from longspan.server.metrics.families import Families
from longspan.server.metrics.rpcs import SECONDS

SHORT_TOKENS = 4096
FIRST_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.5, 1)


class RequestMetrics:
    """Counts at admission and at the edge, and measures answers."""

    def __init__(self, families: Families) -> None:
        self.active = families.gauge(
            "longspan_requests_active", "Calls that were admitted and have not ended."
        )
        self._rejected = families.counter(
            "longspan_requests_rejected_total",
            "Calls that were refused, by the reason in their rich status.",
            "reason",
        )
        self._duration = families.histogram(
            "longspan_request_duration_seconds",
            "From the arrival of a request to the end of its answer; short is below 4,096 tokens.",
            SECONDS,
            "task",
            "length",
        )
        self._first = families.histogram(
            "longspan_time_to_first_token_seconds",
            "From the last byte of a request to the first event of its answer.",
            FIRST_S,
        )
        self._token = families.histogram(
            "longspan_time_per_output_token_seconds",
            "Mean time between the tokens of a generated answer.",
            TOKEN_S,
        )

    def expect(self, reasons: Collection[str]) -> None:
        """Show these reasons from the beginning, though nothing was refused."""
        for reason in reasons:
            self._rejected.labels(reason)

    def rejected(self, reason: str) -> None:
        """A call was refused; the reasons are a fixed set."""
        self._rejected.labels(reason).inc(exemplar=exemplar())

    def began(self, seconds: float) -> None:
        """The first event of an answer leaves, so long after the last byte of its request."""
        self._first.observe(max(seconds, 0.0), exemplar())

    def completed(self, task: str, tokens: int, seconds: float, per_token_s: float) -> None:
        """An answer is complete.

        Args:
            task: its kind.
            tokens: of the prompt.
            seconds: since the request arrived.
            per_token_s: mean time of an output token; 0 where none was generated.
        """
        length = "short" if tokens < SHORT_TOKENS else "long"
        self._duration.labels(task, length).observe(seconds, exemplar())
        if per_token_s > 0:
            self._token.observe(per_token_s, exemplar())
