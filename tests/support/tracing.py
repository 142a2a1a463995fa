"""A caller that traces: a provider of its own, and the server's spans of its calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from google.rpc import error_details_pb2
from grpc_status import rpc_status
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.support.collector import Collector, Received

REQUEST_ID_KEY = "longspan-request-id"


@dataclass(frozen=True)
class Caller:
    """Makes spans of a client."""

    tracer: trace.Tracer

    @contextmanager
    def span(self, name: str = "client") -> Iterator[str]:
        """A span that is current inside; yields its trace id."""
        with self.tracer.start_as_current_span(name, kind=trace.SpanKind.CLIENT) as span:
            yield trace.format_trace_id(span.get_span_context().trace_id)


@contextmanager
def calling(collector: Collector) -> Iterator[Caller]:
    """A caller whose spans go to the same collector."""
    provider = TracerProvider(resource=Resource({"service.name": "caller"}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=collector.endpoint, insecure=True)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    try:
        yield Caller(provider.get_tracer("tests"))
    finally:
        provider.shutdown()


async def request_id(call: Any) -> str:
    """What a raw call was told its id is."""
    metadata = dict(await call.initial_metadata())
    if REQUEST_ID_KEY in metadata:
        return str(metadata[REQUEST_ID_KEY])
    # A call that fails at once may have its end before its beginning, on this side.
    status = await rpc_status.aio.from_call(call)
    request = error_details_pb2.RequestInfo()
    assert status is not None
    assert any(detail.Unpack(request) for detail in status.details)
    return str(request.request_id)


async def server_span(collector: Collector, call: Any) -> Received:
    """The server's span of a raw call."""
    wanted = await request_id(call)
    found: Received = await collector.until(lambda: collector.of_request(wanted))
    return found
