"""The call that the running code belongs to; set at the RPC edge, inherited by its tasks."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from opentelemetry.trace import INVALID_SPAN, NoOpTracer, Span, Tracer

from longspan.server.tracing import names

REQUEST_ID_KEY = "longspan-request-id"
"""Initial metadata of every response."""


@dataclass(slots=True, eq=False, kw_only=True)
class CurrentCall:
    """What logs and spans say of one call, whoever writes them.

    Attributes:
        method: as in ``longspan.v1.InferenceService/Analyze``.
        tenant: empty until it is known.
        tracer: makes the spans of this call.
        span: of the whole call.
        usage: counts for the access line, by name.
        complete: the client has been sent the last event, and may hang up.
        silent: the client has not sent the message that the call begins with.
    """

    request_id: str
    method: str
    tenant: str = ""
    tracer: Tracer = field(default_factory=NoOpTracer)
    span: Span = INVALID_SPAN
    usage: dict[str, int | str] = field(default_factory=dict)
    complete: bool = False
    silent: bool = False


_current: ContextVar[CurrentCall | None] = ContextVar("longspan_call", default=None)


def current_call() -> CurrentCall | None:
    """The call, or None outside of any."""
    return _current.get()


@contextmanager
def entered(call: CurrentCall) -> Iterator[None]:
    """Belong to a call for the length of the block."""
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)


def known_as(tenant: str) -> str:
    """The current call is this tenant's; returns the call's id, a new one outside of any."""
    call = _current.get()
    if call is None:
        return new_request_id()
    call.tenant = tenant
    call.span.set_attribute(names.TENANT, tenant)
    return call.request_id


def new_request_id() -> str:
    """An id that no other request has."""
    return f"req_{uuid.uuid4().hex}"
