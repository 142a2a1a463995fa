"""Calls with one message: who makes them hold a place until it comes, and not for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import grpc
from grpc_status import rpc_status

from longspan.server.current_call import current_call
from longspan.server.errors import DeadlineExceeded, InvalidRequest, LongspanError
from longspan.server.identity import Tenant
from longspan.server.services.handlers import Behaviour
from longspan.server.services.places import Places
from longspan.server.services.statuses import name_request, to_status

Context = grpc.aio.ServicerContext[Any, Any]


class OneMessage:
    """Makes handlers that run before their message is there, and wait for it within bounds.

    Args:
        wait_s: for a message.
    """

    def __init__(self, places: Places, wait_s: float) -> None:
        self._places = places
        self._wait_s = wait_s

    def bounded(
        self, handler: Any, whose: Callable[[Context], Tenant | None], *, lasts: bool = False
    ) -> Any:
        """The same handler within the bounds.

        Args:
            handler: of one message, and of one answer or many.
            whose: the caller; None is anybody. May raise what the call is refused by.
            lasts: the call holds its place until it ends, not until its message has come.
        """
        respond = _responding(handler)

        async def answer(_: object, context: Context) -> None:
            with ExitStack() as place:
                try:
                    place.enter_context(self._places.held(whose(context)))
                    request = await self._request(context)
                except LongspanError as error:
                    await refuse(context, error)
                if not lasts:
                    place.close()
                await respond(request, context)

        # Handlers of streams alone run before the message is there.
        return grpc.stream_stream_rpc_method_handler(
            answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _request(self, context: Context) -> Any:
        try:
            async with asyncio.timeout(self._wait_s):
                message = await context.read()
        except TimeoutError:
            raise DeadlineExceeded(f"nothing was sent for {self._wait_s:g} s") from None
        if message is grpc.aio.EOF:
            raise InvalidRequest("there was no message", field="")
        return message


async def refuse(context: Context, error: LongspanError) -> None:
    """End a call with an error's status."""
    status = to_status(error)
    if (call := current_call()) is not None:
        name_request(status, call.request_id)
    await context.abort_with_status(rpc_status.to_status(status))


def _responding(handler: Any) -> Behaviour:
    """What a handler does, as one that writes its answers itself."""
    if handler.unary_stream:
        behaviour: Behaviour = handler.unary_stream
        return behaviour

    async def respond(request: Any, context: Context) -> None:
        await context.write(await handler.unary_unary(request, context))

    return respond
