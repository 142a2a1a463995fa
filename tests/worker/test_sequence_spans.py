"""Whatever happens to a sequence, its spans begin in order and all of them end."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from longspan.worker.tracing.sequence_spans import SequenceSpans, State


@dataclass
class Traced:
    """Spans of one sequence, and a clock that ticks with everything that happens."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    now_ns: int = 1_000

    def __post_init__(self) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.spans = SequenceSpans(provider.get_tracer("test"), Context(), {"longspan.job": 7})

    def tick(self) -> int:
        self.now_ns += 1
        return self.now_ns

    def step(self, end: int, *, samples: bool = False) -> None:
        """Compute one chunk up to ``end``."""
        self.spans.computing(self.tick())
        self.spans.computed(end, self.tick())
        self.spans.prefilled(end, 0, 0)
        if samples:
            self.spans.generated(1, self.tick())

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


def test_a_prefill_and_a_decode() -> None:
    traced = Traced()
    for end in (100, 200, 300):
        traced.step(end, samples=end == 300)
    for end in (301, 302):
        traced.step(end, samples=True)
    traced.spans.end(traced.tick())
    prefill, decode = traced.ended
    assert (prefill.name, decode.name) == ("prefill", "decode")
    assert prefill.attributes is not None
    assert prefill.attributes["longspan.tokens"] == 300
    assert prefill.attributes["longspan.steps"] == 3
    assert decode.attributes is not None
    assert decode.attributes["gen_ai.usage.output_tokens"] == 3
    assert prefill.end_time == decode.start_time


def test_events_grow_with_the_logarithm_of_the_steps() -> None:
    traced = Traced()
    for end in range(1, 1_001):
        traced.step(end)
    traced.spans.end(traced.tick())
    [prefill] = traced.ended
    assert len(prefill.events) == 10


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("NOT_FINITE", StatusCode.ERROR),
        ("PROMPT_TOO_LONG", StatusCode.UNSET),
        ("CANCELLED", StatusCode.UNSET),
    ],
)
def test_only_faults_of_the_worker_are_errors(error: str, status: StatusCode) -> None:
    traced = Traced()
    traced.step(10)
    traced.spans.end(traced.tick(), error=error)
    [prefill] = traced.ended
    assert prefill.status.status_code is status
    assert prefill.attributes is not None
    assert prefill.attributes["error.type"] == error


def test_one_that_is_refused_has_a_span_that_says_so() -> None:
    traced = Traced()
    traced.spans.end(traced.tick(), error="PROMPT_TOO_LONG")
    [prefill] = traced.ended
    assert prefill.start_time == prefill.end_time


def test_one_that_ends_before_it_began_has_none() -> None:
    traced = Traced()
    traced.spans.end(traced.tick())
    assert traced.ended == []


ACTIONS = st.lists(st.sampled_from(["chunk", "sample", "restore", "restored"]), max_size=30)


@given(ACTIONS, st.sampled_from(["", "CANCELLED", "NOT_FINITE"]))
def test_every_span_ends_once_and_prefill_comes_first(actions: list[str], error: str) -> None:
    traced = Traced()
    for place, action in enumerate(actions):
        match action:
            case "chunk":
                traced.step(place)
            case "sample":
                traced.step(place, samples=True)
            case "restore":
                traced.spans.restoring(3, traced.tick())
            case "restored":
                traced.spans.restoring(0, traced.tick())
    traced.spans.end(traced.tick(), error=error)
    assert traced.spans.state is State.ENDED
    names = [span.name for span in traced.ended if span.name != "restore KV pages"]
    computed = {"chunk", "sample"} & set(actions)
    expected = ["prefill"] if computed or error else []
    assert names == (["prefill", "decode"] if "sample" in actions else expected)
    restores = [span for span in traced.ended if span.name == "restore KV pages"]
    assert len(restores) == _beginnings(actions)
    for span in traced.ended:
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time


def _beginnings(actions: list[str]) -> int:
    count, open_ = 0, False
    for action in actions:
        if action == "restore" and not open_:
            count, open_ = count + 1, True
        elif action == "restored":
            open_ = False
    return count
