"""The server's tracer, and where its spans go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from grpc import StatusCode
from opentelemetry.trace import NoOpTracer, Tracer

from longspan.server.tracing import names
from longspan.server.tracing.settings import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from longspan.otlp.export import SpanExport

CLOSE_S = 1.5
"""For the last spans, when the server stops."""


class Tracing:
    """Owns the provider of this server; off, it costs nothing.

    Attributes:
        tracer: makes the spans; the API's own that records nothing while tracing is off.
    """

    def __init__(self, tracer: Tracer, export: SpanExport | None) -> None:
        self.tracer = tracer
        self._export = export

    @classmethod
    @asynccontextmanager
    async def running(cls, settings: TracingSettings) -> AsyncIterator[Self]:
        """Trace until the block is left; waits for a collector for ``CLOSE_S`` at most."""
        if settings.endpoint is None:
            yield cls(NoOpTracer(), None)
            return
        export = _export(settings.endpoint, settings)
        try:
            yield cls(export.tracer, export)
        finally:
            await asyncio.to_thread(export.close, CLOSE_S)

    @property
    def enabled(self) -> bool:
        """Whether spans are sent anywhere."""
        return self._export is not None

    @property
    def spans_exported(self) -> int:
        """Spans that the collector took."""
        return 0 if self._export is None else self._export.exported

    @property
    def spans_dropped(self) -> int:
        """Spans that it did not take in time, or for which there was no room."""
        return 0 if self._export is None else self._export.dropped


def _export(endpoint: str, settings: TracingSettings) -> SpanExport:
    # Imported here, so that a server without tracing does without the SDK.
    from longspan.otlp.export import SpanExport
    from longspan.server.tracing.sampler import sampler

    return SpanExport(
        endpoint,
        service="longspan-server",
        sampler=sampler(settings.sample_ratio, settings.lookup_ratio),
        unwanted=_refused,
    )


def _refused(span: ReadableSpan) -> bool:
    """True for calls without a credential: anybody could fill the queue with their spans."""
    code = (span.attributes or {}).get(names.RPC_RESPONSE_STATUS_CODE)
    return code == StatusCode.UNAUTHENTICATED.name
