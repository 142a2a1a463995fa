"""One line for each call that has ended."""

from __future__ import annotations

import logging

from grpc import StatusCode

from longspan.server.current_call import CurrentCall
from longspan.server.tracing.outcome import SERVER_FAULTS

_log = logging.getLogger("longspan.access")

LONG_TASKS = frozenset({"Upload", "Analyze", "Generate"})
"""Calls that operators look for one by one; all others are many, and short."""


def log_access(call: CurrentCall, code: StatusCode, duration_s: float) -> None:
    """Say how a call ended: at info what is long or the server's fault, at debug the rest."""
    task = call.method.rpartition("/")[2]
    # Whoever has no credential decides how often it is refused, not how much is written.
    is_long = task in LONG_TASKS and code is not StatusCode.UNAUTHENTICATED
    shown = (is_long or code in SERVER_FAULTS) and not call.silent
    level = logging.INFO if shown else logging.DEBUG
    counts = "".join(f" {name}={count}" for name, count in call.usage.items())
    fields = {"status": code.name, "duration_s": round(duration_s, 6), **call.usage}
    _log.log(level, "%s %s %.3f s%s", task, code.name, duration_s, counts, extra=fields)
