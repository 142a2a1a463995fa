"""OpenTelemetry is a guest of the client: used where it is, not missed where it is not."""

from __future__ import annotations

import subprocess
import sys

from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from longspan.client._tracing import trace_metadata


def test_the_current_span_goes_with_the_call() -> None:
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, False, TraceFlags(1)))
    with use_span(span):
        assert trace_metadata() == (("traceparent", f"00-{0xABC:032x}-{0xDEF:016x}-01"),)
    assert trace_metadata() == ()


def test_nothing_goes_where_opentelemetry_is_not_installed() -> None:
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from longspan.client._tracing import trace_metadata\n"
        "assert trace_metadata() == ()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
