"""Counts and measures every call of the API, however it ends."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc

from longspan.server.metrics.metrics import Metrics
from longspan.server.services.errors_interceptor import Behaviour, kind_of
from longspan.server.services.refusals import REASONS, refusal_of

# A client gives up at its deadline, and says so a moment before the server's own clock does.
DEADLINE_SLACK_S = 0.05


class MetricsInterceptor(grpc.aio.ServerInterceptor):
    """Stands outside of the one that turns errors into statuses, and sees the statuses.

    Calls beyond gRPC's own bound on calls at once reach no interceptor.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._rpcs = metrics.rpcs
        self._requests = metrics.requests
        self._requests.expect(REASONS)

    async def intercept_service(
        self, continuation: Any, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Replace the handler's behaviour by a measured one; unknown methods have none."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/longspan."):
            return handler
        make, behaviour = kind_of(handler)
        return make(
            self._measured(behaviour, method.removeprefix("/")),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _measured(self, behaviour: Behaviour, method: str) -> Behaviour:
        async def measured(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            self._rpcs.started(method)
            started = time.perf_counter()
            status = grpc.StatusCode.UNKNOWN.name
            try:
                response = await behaviour(request, context)
                status = grpc.StatusCode.OK.name
                return response
            except asyncio.CancelledError:
                status = _cut(context)
                raise
            except grpc.aio.AbortError:
                status = _name(context.code())
                refusal = refusal_of(context.trailing_metadata())
                if refusal is not None:
                    self._requests.rejected(refusal)
                raise
            finally:
                self._rpcs.ended(method, status, time.perf_counter() - started)

        return measured


def _name(code: object) -> str:
    """The name of the code that a call was aborted with."""
    return code.name if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN.name


def _cut(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The status of a call that was ended from outside: by the client, or by its deadline."""
    remaining_s = context.time_remaining()
    if remaining_s is not None and remaining_s <= DEADLINE_SLACK_S:
        return grpc.StatusCode.DEADLINE_EXCEEDED.name
    return grpc.StatusCode.CANCELLED.name
