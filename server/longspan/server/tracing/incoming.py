"""The caller's trace, as its metadata has it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
MAX_PARENT_CHARS = 128
MAX_STATE_CHARS = 512
MAX_STATE_MEMBERS = 32

_KEY = r"[a-z][_0-9a-z*/-]{0,255}|[a-z0-9][_0-9a-z*/-]{0,240}@[a-z][_0-9a-z*/-]{0,13}"
_MEMBER = re.compile(rf"({_KEY})=[ -+\--<>-~]{{1,256}}")
_PROPAGATOR = TraceContextTextMapPropagator()


def callers_context(metadata: Iterable[tuple[str, str | bytes]]) -> Context:
    """The context that a call's spans are in; an empty one where the caller has no trace.

    What OpenTelemetry does not take, it writes to the log, word by word: it is not shown what
    is malformed, nor what is there twice.
    """
    sent: dict[str, list[str]] = {TRACEPARENT: [], TRACESTATE: []}
    for name, value in metadata:
        if name in sent and isinstance(value, str):
            sent[name].append(value)
    headers: dict[str, str] = {}
    if len(sent[TRACEPARENT]) == 1 and len(sent[TRACEPARENT][0]) <= MAX_PARENT_CHARS:
        [headers[TRACEPARENT]] = sent[TRACEPARENT]
    state = ",".join(sent[TRACESTATE])
    if _is_state(state):
        headers[TRACESTATE] = state
    return _PROPAGATOR.extract(headers)


def _is_state(state: str) -> bool:
    if len(state) > MAX_STATE_CHARS:
        return False
    members = [member.strip(" \t") for member in state.split(",")]
    found = [_MEMBER.fullmatch(member) for member in members if member]
    names = {one[1] for one in found if one is not None}
    return len(names) == len(found) <= MAX_STATE_MEMBERS
