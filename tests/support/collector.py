"""A small OTLP collector on a real socket, and sockets that are none."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

WAIT_S = 15.0


@dataclass(frozen=True)
class Happened:
    """An event of a span."""

    name: str
    time_ns: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Received:
    """A span as it came; ``parent_id`` is empty for a root."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    status: str
    attributes: Mapping[str, Any]
    events: tuple[Happened, ...]


class Collector(pb_grpc.TraceServiceServicer):
    """Keeps what is exported to it.

    Attributes:
        endpoint: where it listens.
        spans: all that came.
        wire: the messages as bytes, in which no content may be.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.spans: list[Received] = []
        self.wire: list[bytes] = []
        self._lock = threading.Lock()

    def Export(
        self, request: pb.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> pb.ExportTraceServiceResponse:
        """Take a batch."""
        with self._lock:
            self.wire.append(request.SerializeToString())
            for resource in request.resource_spans:
                service = _values(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    self.spans += [_received(service, span) for span in scope.spans]
        return pb.ExportTraceServiceResponse()

    def named(self, name: str, trace_id: str = "") -> list[Received]:
        """Spans of a name, of one trace or of all."""
        return [
            span for span in self.spans if span.name == name and trace_id in ("", span.trace_id)
        ]

    def of_request(self, request_id: str) -> Received | None:
        """The span of one call to the server."""
        found = [s for s in self.spans if s.attributes.get("longspan.request_id") == request_id]
        return found[0] if found else None

    def child(self, parent: Received, name: str) -> Received | None:
        """The one span of a name below another."""
        found = [s for s in self.spans if (s.parent_id, s.name) == (parent.span_id, name)]
        assert len(found) < 2
        return found[0] if found else None

    def trace(self, trace_id: str) -> list[Received]:
        """The spans of one trace, in the order of their beginnings."""
        spans = [span for span in self.spans if span.trace_id == trace_id]
        return sorted(spans, key=lambda span: span.start_ns)

    async def until(self, condition: Callable[[], Any], at_most_s: float = WAIT_S) -> Any:
        """Wait for spans; returns what the condition found."""
        async with asyncio.timeout(at_most_s):
            while not (found := condition()):  # noqa: ASYNC110 (another thread brings them)
                await asyncio.sleep(0.02)
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""
    server = grpc.server(ThreadPoolExecutor(2))
    collector = Collector()
    pb_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    collector.endpoint = f"http://127.0.0.1:{port}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()


@contextmanager
def black_hole() -> Iterator[str]:
    """An endpoint that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def closed_port() -> Iterator[str]:
    """An endpoint that nobody listens at, kept from others meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def _received(service: str, span: WireSpan) -> Received:
    return Received(
        service=service,
        name=span.name,
        kind=WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        status={0: "UNSET", 1: "OK", 2: "ERROR"}[span.status.code],
        attributes=_values(span.attributes),
        events=tuple(
            Happened(event.name, event.time_unix_nano, _values(event.attributes))
            for event in span.events
        ),
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one) for one in attributes}


def _value(attribute: KeyValue) -> Any:
    value: Any = attribute.value
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [getattr(one, one.WhichOneof("value")) for one in value.array_value.values]
    return getattr(value, kind) if kind else None
