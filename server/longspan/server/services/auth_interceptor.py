"""Refuses calls without a credential before anything of the request is read."""

from __future__ import annotations

import time
from typing import Any

import grpc
from grpc_status import rpc_status

from longspan.server.auth.authenticator import Authenticator
from longspan.server.auth.refusals import Refusals
from longspan.server.current_call import current_call
from longspan.server.errors import Unauthenticated
from longspan.server.services.statuses import name_request, to_status
from longspan.server.services.strangers import Strangers

# Load balancers ask without a credential; it is answered at once, and says little.
OPEN_METHOD = "/grpc.health.v1.Health/Check"


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Checks what was sent along; the certificate is looked at when the call is admitted.

    Args:
        stranger_wait_s: for the message of a call that needs no credential.
    """

    def __init__(
        self, authenticator: Authenticator, refusals: Refusals, stranger_wait_s: float
    ) -> None:
        self._authenticator = authenticator
        self._refusals = refusals
        self._strangers = Strangers(stranger_wait_s)

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
            return self._strangers.bounded(handler)
        if self._authenticator.required:
            try:
                self._authenticator.sent(details.invocation_metadata or ())
            except Unauthenticated as error:
                return self._refusing(error)
        return handler

    def _refusing(self, error: Unauthenticated) -> Any:
        async def refuse(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            self._refusals.note(error.refusal, context.peer(), time.monotonic())
            status = to_status(error)
            if (call := current_call()) is not None:
                name_request(status, call.request_id)
            await context.abort_with_status(rpc_status.to_status(status))

        # Of whatever kind the method is: handlers of streams alone get no message that they
        # do not ask for, and a refused caller may send as many as it likes.
        return grpc.stream_stream_rpc_method_handler(refuse)
