"""Turns tracing on for what a worker serves; the SDK is imported here alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from longspan.otlp.export import SpanExport
from longspan.worker.generation.workload import Generation
from longspan.worker.served import Served, Wake
from longspan.worker.tracing.workload import TracedGeneration
from longspan.worker.workload import Workload

CLOSE_S = 1.0
"""For the last spans, when the worker stops."""


def traced(served: Served, endpoint: str) -> Served:
    """The same, with spans that go to ``endpoint``; an encoder has none of its own.

    The server decides which requests are traced.
    """
    export = SpanExport(endpoint, service="longspan-worker", sampler=ParentBased(ALWAYS_OFF))

    def open_stream(wake: Wake) -> Workload[Any, Any]:
        workload = served.open(wake)
        if isinstance(workload, Generation):
            return TracedGeneration(workload, export.tracer)
        return workload

    def close() -> None:
        served.close()
        export.close(CLOSE_S)

    return replace(served, open=open_stream, close=close)
