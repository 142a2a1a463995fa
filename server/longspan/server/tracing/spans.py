"""Spans of the call that the running code belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import NoOpTracer, Span, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from longspan.server.current_call import current_call
from longspan.server.tracing.outcome import note_error

Value = str | int | float | bool
Attributes = Mapping[str, Value]

_PROPAGATOR = TraceContextTextMapPropagator()


@contextmanager
def span(name: str, attributes: Attributes | None = None) -> Iterator[Span]:
    """A span around the block, which must not yield to its caller inside.

    An error is noted by its name alone.
    """
    with _tracer().start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as one:
        try:
            yield one
        except BaseException as error:
            note_error(one, error)
            raise


class Place:
    """A place in a trace, for spans that begin or end where another task runs."""

    def __init__(self, tracer: Tracer, context: Context) -> None:
        self._tracer = tracer
        self._context = context

    @classmethod
    def here(cls) -> Place:
        """Below the current span of the current call."""
        return cls(_tracer(), get_current())

    def start(self, name: str, attributes: Attributes | None = None) -> Span:
        """A span below this place, to be ended by whoever has it."""
        return self._tracer.start_span(name, context=self._context, attributes=attributes)

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Something happened to the span of this place."""
        trace.get_current_span(self._context).add_event(name, attributes)

    def carrier(self) -> dict[str, str]:
        """The W3C headers of this place; empty outside of any trace."""
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, self._context)
        return headers


def _tracer() -> Tracer:
    call = current_call()
    return NoOpTracer() if call is None else call.tracer
