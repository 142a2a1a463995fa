"""A tracer whose spans go to one collector by OTLP over gRPC."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import Tracer

from longspan.otlp.batcher import Batcher

EXPORT_TIMEOUT_S = 5.0
NEVER_RETRIED = frozenset({grpc.StatusCode.OK})
"""The exporter would hold all later spans up, say so each time, and be hard to stop meanwhile; an
empty set means its default."""
SCOPE = "longspan"
LIMITS = SpanLimits(
    max_span_attributes=64,
    max_events=64,
    max_event_attributes=16,
    max_attribute_length=256,
    max_span_attribute_length=256,
)


class SpanExport:
    """Owns a provider that nobody else knows; nothing global is set.

    Args:
        endpoint: of the collector; ``http://`` is plain text, ``https://`` is TLS.
        service: name of this kind of process.
        sampler: decides which spans are recorded.
        attributes: of the process, beside its name, version and instance.
        unwanted: see ``Batcher``.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        service: str,
        sampler: Sampler,
        attributes: Mapping[str, str | int] | None = None,
        unwanted: Callable[[ReadableSpan], bool] = lambda _: False,
    ) -> None:
        self._batcher = Batcher(
            OTLPSpanExporter(
                endpoint=endpoint,
                insecure=not endpoint.startswith("https://"),
                timeout=EXPORT_TIMEOUT_S,
                retryable_error_codes=NEVER_RETRIED,
            ),
            unwanted=unwanted,
        )
        self._provider = TracerProvider(
            sampler=sampler,
            resource=Resource.create(
                {
                    "service.name": service,
                    "service.namespace": "longspan",
                    "service.version": _version(),
                    "service.instance.id": str(uuid.uuid4()),
                    **(attributes or {}),
                }
            ),
            span_limits=LIMITS,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self._batcher)
        self.tracer: Tracer = self._provider.get_tracer(SCOPE, _version())

    @property
    def exported(self) -> int:
        """Spans that the collector took."""
        return self._batcher.exported

    @property
    def dropped(self) -> int:
        """Spans that it did not take in time, or for which there was no room."""
        return self._batcher.dropped

    def close(self, timeout_s: float) -> None:
        """Send what waits, for at most about so long."""
        self._batcher.close(timeout_s)


def _version() -> str:
    try:
        return version("longspan")
    except PackageNotFoundError:
        return "unknown"
