"""Adds to each log record what is known of the call that it belongs to."""

from __future__ import annotations

import logging

from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from longspan.server.current_call import current_call

CONTEXT_FIELDS = ("trace_id", "span_id", "request_id", "tenant", "method")


class CallFilter(logging.Filter):
    """Lets everything pass; belongs on a handler, which runs where the record was made."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Set ``CONTEXT_FIELDS``, as far as they are known."""
        call = current_call()
        if call is not None:
            record.request_id = call.request_id
            record.tenant = call.tenant
            record.method = call.method
        span = get_current_span().get_span_context()
        if span.is_valid:
            record.trace_id = format_trace_id(span.trace_id)
            record.span_id = format_span_id(span.span_id)
        return True
