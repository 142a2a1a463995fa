"""Which trace an observation belongs to."""

from __future__ import annotations

from opentelemetry import trace


def exemplar() -> dict[str, str] | None:
    """The current span's trace as labels of an exemplar; None where it is not recorded."""
    context = trace.get_current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return None
    return {"trace_id": trace.format_trace_id(context.trace_id)}
