"""Counts and measures every call of the API, however it ends."""

from __future__ import annotations

import time
from typing import Any

import grpc

from longspan.server.metrics.metrics import Metrics
from longspan.server.services.endings import code_of
from longspan.server.services.handlers import Behaviour, rewritten
from longspan.server.services.refusals import REASONS, refusal_of


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
        """Replace the handler's behaviour by a measured one; unknown methods count nothing."""
        return await rewritten(continuation, handler_call_details, self._measured)

    def _measured(self, behaviour: Behaviour, method: str) -> Behaviour:
        async def measured(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            self._rpcs.started(method)
            started = time.perf_counter()
            error: BaseException | None = None
            try:
                return await behaviour(request, context)
            except BaseException as raised:
                error = raised
                raise
            finally:
                code = code_of(error, context)
                self._rpcs.ended(method, code.name, time.perf_counter() - started)
                if isinstance(error, grpc.aio.AbortError):
                    self._note_refusal(context)

        return measured

    def _note_refusal(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        refusal = refusal_of(context.trailing_metadata())
        if refusal is not None:
            self._requests.rejected(refusal)
