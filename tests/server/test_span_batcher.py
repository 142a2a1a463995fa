"""Spans leave in batches; a collector in trouble costs a bounded queue and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from longspan.otlp.batcher import Batcher
from tests.support.collector import Collector, black_hole, collecting

SPANS = 1_000
QUEUE_SPANS = 50
BATCH_SPANS = 10


class Held(SpanExporter):
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.calls += 1
        self.go.wait()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.go.set()


def batching(exporter: SpanExporter, interval_s: float = 0.01) -> tuple[TracerProvider, Batcher]:
    """A provider over a small batcher."""
    batcher = Batcher(
        exporter, queue_spans=QUEUE_SPANS, batch_spans=BATCH_SPANS, interval_s=interval_s
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(batcher)
    return provider, batcher


def emit(provider: TracerProvider, count: int) -> None:
    """End so many spans."""
    tracer = provider.get_tracer("test")
    for number in range(count):
        tracer.start_span(f"span {number}").end()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


async def test_spans_arrive_without_being_asked_for(collector: Collector) -> None:
    provider, batcher = batching(OTLPSpanExporter(collector.endpoint, insecure=True))
    emit(provider, 3)
    await collector.until(lambda: len(collector.spans) == 3)
    await collector.until(lambda: batcher.exported == 3)
    batcher.close(5.0)
    assert batcher.dropped == 0


def test_closing_sends_what_waits(collector: Collector) -> None:
    exporter = OTLPSpanExporter(collector.endpoint, insecure=True)
    provider, batcher = batching(exporter, interval_s=60.0)
    emit(provider, BATCH_SPANS - 1)
    batcher.close(5.0)
    assert len(collector.spans) == batcher.exported == BATCH_SPANS - 1


def test_what_finds_no_room_is_dropped_and_counted() -> None:
    held = Held()
    provider, batcher = batching(held)
    emit(provider, SPANS)
    # One batch may be under way.
    assert QUEUE_SPANS - BATCH_SPANS <= batcher.waiting <= QUEUE_SPANS
    assert SPANS - QUEUE_SPANS - BATCH_SPANS <= batcher.dropped <= SPANS - QUEUE_SPANS
    held.go.set()
    batcher.close(5.0)
    assert batcher.exported + batcher.dropped == SPANS


def test_a_collector_that_never_answers_ends_with_the_time_given() -> None:
    with black_hole() as endpoint:
        provider, batcher = batching(OTLPSpanExporter(endpoint, insecure=True, timeout=60.0))
        emit(provider, SPANS)
        batcher.close(0.2)
        emit(provider, 1)
    assert (batcher.exported, batcher.waiting) == (0, 0)
    assert batcher.dropped == SPANS + 1
    assert not batcher._thread.is_alive()


def test_an_exporter_that_raises_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Held):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            self.calls += 1
            raise RuntimeError("broken")

    broken = Broken()
    provider, batcher = batching(broken)
    emit(provider, 2 * BATCH_SPANS)
    batcher.close(5.0)
    assert broken.calls >= 2
    assert batcher.dropped == 2 * BATCH_SPANS
    assert "spans not exported" in caplog.text


def test_what_is_not_sampled_is_no_loss() -> None:
    provider, batcher = batching(Held())
    unsampled = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(0))
    context = set_span_in_context(NonRecordingSpan(unsampled))
    provider.get_tracer("test").start_span("child", context).end()
    batcher.close(1.0)
    assert (batcher.exported, batcher.dropped) == (0, 0)
