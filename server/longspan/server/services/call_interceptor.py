"""The outermost edge of a call: its id, its trace, its context for logs, and its access line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.trace import SpanKind, use_span

from longspan.server.current_call import REQUEST_ID_KEY, CurrentCall, entered, new_request_id
from longspan.server.logs.access import log_access
from longspan.server.services.endings import code_of
from longspan.server.services.handlers import Behaviour, rewritten
from longspan.server.tracing import names
from longspan.server.tracing.incoming import callers_context
from longspan.server.tracing.outcome import end_call
from longspan.server.tracing.tracing import Tracing

Context = grpc.aio.ServicerContext[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Comes before all others, so that what they refuse is seen as well."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracer = tracing.tracer

    async def intercept_service(
        self, continuation: Any, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Replace the handler's behaviour by an observed one."""
        return await rewritten(continuation, handler_call_details, self._observed)

    def _observed(self, behaviour: Behaviour, method: str) -> Behaviour:
        async def observed(request: Any, context: Context) -> Any:
            call = CurrentCall(request_id=new_request_id(), method=method, tracer=self._tracer)
            with self._span(call, context), entered(call), _noted(call, context):
                await _tell_id(call, context)
                return await behaviour(request, context)

        return observed

    @contextmanager
    def _span(self, call: CurrentCall, context: Context) -> Iterator[None]:
        service, _, name = call.method.rpartition("/")
        call.span = self._tracer.start_span(
            call.method,
            context=callers_context(context.invocation_metadata() or ()),
            kind=SpanKind.SERVER,
            attributes={
                names.RPC_SYSTEM: "grpc",
                names.RPC_SERVICE: service,
                names.RPC_METHOD: name,
                names.REQUEST_ID: call.request_id,
            },
        )
        with use_span(
            call.span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            yield


@contextmanager
def _noted(call: CurrentCall, context: Context) -> Iterator[None]:
    """Notes on span and in the log how the call ended, while both still belong to it."""
    clock = asyncio.get_running_loop().time
    started_s = clock()
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        code = code_of(error, context)
        end_call(call.span, code)
        log_access(call, code, clock() - started_s)


async def _tell_id(call: CurrentCall, context: Context) -> None:
    try:
        await context.send_initial_metadata(((REQUEST_ID_KEY, call.request_id),))
    except grpc.aio.BaseError as error:
        raise asyncio.CancelledError from error
