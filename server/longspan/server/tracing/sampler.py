"""Which traces that begin here are recorded."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import (
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

LOOKUPS = frozenset(
    f"longspan.v1.{method}"
    for method in (
        "CacheService/Stats",
        "DocumentService/GetDocument",
        "DocumentService/ListDocuments",
    )
)
"""Calls that compute nothing and read little, of which there are many."""


class _Roots(Sampler):
    def __init__(self, ratio: float, lookup_ratio: float) -> None:
        self._others = TraceIdRatioBased(ratio)
        self._lookups = TraceIdRatioBased(ratio * lookup_ratio)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        chosen = self._lookups if name in LOOKUPS else self._others
        return chosen.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        return f"{self._others.get_description()}, look-ups {self._lookups.get_description()}"


def sampler(ratio: float, lookup_ratio: float) -> Sampler:
    """A sampler that obeys the caller's trace, and else decides by trace id and method.

    Args:
        ratio: share of the traces that begin here.
        lookup_ratio: share of those again, where the call computes nothing.
    """
    return ParentBased(_Roots(ratio, lookup_ratio))
