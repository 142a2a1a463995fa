"""How a call or a part of it ended, as spans have it. Pure."""

from __future__ import annotations

from grpc import StatusCode
from opentelemetry.trace import Span, Status
from opentelemetry.trace import StatusCode as SpanStatus

from longspan.server.errors import LongspanError
from longspan.server.services.statuses import STATUSES
from longspan.server.tracing import names

SERVER_FAULTS = frozenset(
    {
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.UNIMPLEMENTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    }
)
"""Errors of a server by the semantic conventions of gRPC; all others are the client's."""


def end_call(span: Span, code: StatusCode) -> None:
    """Note a call's status on its span."""
    span.set_attribute(names.RPC_GRPC_STATUS_CODE, code.value[0])
    span.set_attribute(names.RPC_RESPONSE_STATUS_CODE, code.name)
    if code in SERVER_FAULTS:
        span.set_attribute(names.ERROR_TYPE, code.name)
        span.set_status(Status(SpanStatus.ERROR))


def note_error(span: Span, error: BaseException) -> None:
    """Note why a part of a call ended early: the error's name, as its words may hold content."""
    span.set_attribute(names.ERROR_TYPE, type(error).__name__)
    if isinstance(error, LongspanError):
        is_fault = STATUSES.get(type(error), StatusCode.INTERNAL) in SERVER_FAULTS
    else:
        is_fault = isinstance(error, Exception)
    if is_fault:
        span.set_status(Status(SpanStatus.ERROR))
