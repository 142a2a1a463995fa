"""Refuses calls without a credential before anything of the request is read."""

from __future__ import annotations

import time
from typing import Any

import grpc
from grpc_status import rpc_status

from longspan.server.auth.authenticator import Authenticator
from longspan.server.auth.refusals import Refusals
from longspan.server.errors import Unauthenticated
from longspan.server.services.statuses import to_status

# Load balancers ask without a credential; it is answered at once, and says little.
OPEN_METHOD = "/grpc.health.v1.Health/Check"


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Checks what was sent along; the certificate is looked at when the call is admitted."""

    def __init__(self, authenticator: Authenticator, refusals: Refusals) -> None:
        self._authenticator = authenticator
        self._refusals = refusals

    async def intercept_service(
        self, continuation: Any, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Replace the handler of a call that may not be served by one that says so."""
        details = handler_call_details
        if self._authenticator.required and details.method != OPEN_METHOD:
            try:
                self._authenticator.sent(details.invocation_metadata or ())
            except Unauthenticated as error:
                return self._refusing(error)
        return await continuation(details)

    def _refusing(self, error: Unauthenticated) -> Any:
        async def refuse(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            self._refusals.note(error.refusal, context.peer(), time.monotonic())
            await context.abort_with_status(rpc_status.to_status(to_status(error)))

        # Of whatever kind the method is: handlers of streams alone get no message that they
        # do not ask for, and a refused caller may send as many as it likes.
        return grpc.stream_stream_rpc_method_handler(refuse)
