"""The caller's trace, handed on to the server where OpenTelemetry is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from longspan.client._credentials import Metadata


def trace_metadata() -> Metadata:
    """W3C headers of the span that is current where this is called; empty without one."""
    inject = _injector()
    if inject is None:
        return ()
    headers: dict[str, str] = {}
    inject(headers)
    return tuple(headers.items())


@cache
def _injector() -> Callable[[dict[str, str]], None] | None:
    # Not a dependency: who traces has it.
    try:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        return None
    return TraceContextTextMapPropagator().inject
