"""Refuses calls without a credential before anything of the request is read."""

from __future__ import annotations

import time
from typing import Any

import grpc

from longspan.server.errors import Unauthenticated
from longspan.server.limits import Limits
from longspan.server.services.admission import Admission
from longspan.server.services.one_message import OneMessage, refuse
from longspan.server.services.places import Places

# Load balancers ask without a credential; it is answered at once, and says little.
OPEN_METHOD = "/grpc.health.v1.Health/Check"
LASTING_METHOD = "/grpc.health.v1.Health/Watch"


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Checks what was sent along; the certificate is looked at when the call has begun."""

    def __init__(self, admission: Admission, limits: Limits) -> None:
        self._admission = admission
        self._limits = limits
        self._one_message = OneMessage(Places(limits))

    async def intercept_service(
        self, continuation: Any, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Replace the handler of a call that may not be served by one that says so."""
        details = handler_call_details
        handler = await continuation(details)
        if handler is None:
            # A refusal would be one of a method that a stranger has named: counted and logged.
            return None
        if details.method == OPEN_METHOD:
            wait_s = self._limits.handshake_s
            return self._one_message.bounded(handler, lambda _: None, wait_s=wait_s)
        if self._admission.authenticator.required:
            try:
                self._admission.authenticator.sent(details.invocation_metadata or ())
            except Unauthenticated as error:
                return self._refusing(error)
        if handler.request_streaming:
            # Admitted before its first message, and given up if none comes.
            return handler
        return self._one_message.bounded(
            handler,
            self._admission.tenant,
            wait_s=self._limits.chunk_wait_s,
            lasts=details.method == LASTING_METHOD,
        )

    def _refusing(self, error: Unauthenticated) -> Any:
        async def answer(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            self._admission.refusals.note(error.refusal, context.peer(), time.monotonic())
            await refuse(context, error)

        # Of whatever kind the method is: handlers of streams alone get no message that they
        # do not ask for, and a refused caller may send as many as it likes.
        return grpc.stream_stream_rpc_method_handler(answer)
