"""Which traces are recorded."""

from __future__ import annotations

import re

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import INVALID_SPAN

from longspan.server.tracing.incoming import callers_context
from longspan.server.tracing.sampler import LOOKUPS, sampler
from tests.alerts.rules import alerts
from tests.security.callers import methods, path_of

LOOKUP, WORK = "longspan.v1.DocumentService/GetDocument", "longspan.v1.InferenceService/Analyze"


def recorded(ratio: float, lookup_ratio: float, name: str, context: Context, count: int) -> int:
    tracer = TracerProvider(
        sampler=sampler(ratio, lookup_ratio), shutdown_on_exit=False
    ).get_tracer("test")
    spans = [tracer.start_span(name, context=context) for _ in range(count)]
    assert INVALID_SPAN not in spans
    return sum(span.is_recording() for span in spans)


def caller(sampled: bool) -> Context:
    return callers_context([("traceparent", f"00-{7:032x}-{9:016x}-{int(sampled):02x}")])


def test_every_piece_of_work_and_one_look_up_in_twenty_is_recorded() -> None:
    assert recorded(1.0, 0.05, WORK, Context(), 500) == 500
    assert 100 <= recorded(1.0, 0.05, LOOKUP, Context(), 4000) <= 320


def test_the_ratio_of_look_ups_is_a_share_of_the_other() -> None:
    assert 700 <= recorded(0.2, 0.5, WORK, Context(), 4000) <= 900
    assert 310 <= recorded(0.2, 0.5, LOOKUP, Context(), 4000) <= 490
    assert recorded(0.0, 1.0, LOOKUP, Context(), 500) == 0


@pytest.mark.parametrize("name", [LOOKUP, WORK])
def test_a_callers_trace_is_recorded_as_the_caller_says(name: str) -> None:
    assert recorded(0.0, 0.0, name, caller(sampled=True), 20) == 20
    assert recorded(1.0, 1.0, name, caller(sampled=False), 20) == 0


def test_look_ups_are_methods_of_the_api_and_those_the_alert_leaves_out() -> None:
    known = {path_of(method).removeprefix("/") for method in methods()}
    [left_out] = re.findall(r'method!~"([^"]+)"', alerts()["LongspanNoTraces"]["expr"])
    assert {name for name in known if re.fullmatch(left_out, name)} == LOOKUPS
