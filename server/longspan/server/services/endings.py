"""The status that a call ended with, for those who watch from outside."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from longspan.server.current_call import current_call
from longspan.server.services.statuses import name_request

DEADLINE_SLACK_S = 0.1
"""A client that gives up at its deadline is heard a moment before the server's own clock ends."""

_CODES = {one.value[0]: one for one in grpc.StatusCode}


def code_of(
    error: BaseException | None, context: grpc.aio.ServicerContext[Any, Any]
) -> grpc.StatusCode:
    """The status of the current call, whose handler returned, or raised this."""
    if error is None:
        return grpc.StatusCode.OK
    if isinstance(error, asyncio.CancelledError):
        call = current_call()
        if call is not None and call.complete:
            return grpc.StatusCode.OK
        return _cut(context)
    if isinstance(error, grpc.aio.AbortError):
        code: Any = context.code()
        known = code if isinstance(code, grpc.StatusCode) else _CODES.get(code)
        return known or grpc.StatusCode.UNKNOWN
    if isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError):
        return _cut(context)  # nobody was there to be told
    return grpc.StatusCode.UNKNOWN


async def end_with(context: grpc.aio.ServicerContext[Any, Any], status: status_pb2.Status) -> None:
    """End the current call with a status that names it; raises as gRPC's abort does."""
    if (call := current_call()) is not None:
        name_request(status, call.request_id)
    await context.abort_with_status(rpc_status.to_status(status))


def _cut(context: grpc.aio.ServicerContext[Any, Any]) -> grpc.StatusCode:
    """The handler was cancelled: by the deadline, by the client, or as the server stops."""
    remaining_s = context.time_remaining()
    if remaining_s is not None and remaining_s <= DEADLINE_SLACK_S:
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.CANCELLED
