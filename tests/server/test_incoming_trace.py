"""A caller's trace context: taken where it is well-formed, and never quoted in the log."""

from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import SpanContext, get_current_span

from longspan.server.tracing.incoming import callers_context

PARENT = f"00-{0xABC:032x}-{0xDEF:016x}-01"


def found(*metadata: tuple[str, str | bytes]) -> SpanContext:
    return get_current_span(callers_context(metadata)).get_span_context()


def test_parent_and_state_are_taken() -> None:
    states = ("a=1, 33@nr=0-1 2,", "vendor/x=y")
    context = found(("traceparent", PARENT), *(("tracestate", state) for state in states))
    assert (context.trace_id, context.span_id) == (0xABC, 0xDEF)
    assert context.trace_flags.sampled
    assert dict(context.trace_state) == {"a": "1", "33@nr": "0-1 2", "vendor/x": "y"}


def test_two_parents_are_none() -> None:
    assert not found(("traceparent", PARENT), ("traceparent", PARENT)).is_valid


@pytest.mark.parametrize(
    "state",
    [
        "Patient John Doe",
        "a=1,a=2",
        "a=1," * 200,
        "k" * 600 + "=1",
        ",".join(f"k{number}=1" for number in range(33)),
        "a=" + "x" * 20_000,
        "a=\x1b[31m",
    ],
)
def test_a_malformed_state_costs_the_state_alone(
    state: str, caplog: pytest.LogCaptureFixture
) -> None:
    context = found(("traceparent", PARENT), ("tracestate", state))
    assert context.trace_id == 0xABC
    assert not context.trace_state
    assert not caplog.records


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parent=st.one_of(st.just(PARENT), st.text(max_size=700), st.binary(max_size=100)),
    state=st.one_of(
        st.text(max_size=700),
        st.text("ab1@=,/ \t-*_", max_size=60),
        st.lists(st.text("ab1@=", max_size=4), max_size=40).map(",".join),
    ),
)
def test_nothing_raises_and_nothing_is_logged(
    parent: str | bytes, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    found(("traceparent", parent), ("tracestate", state))
    assert not caplog.records
