"""Calls with one message: those that wait for it, or for their answer to be taken, are bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from longspan.server.current_call import current_call
from longspan.server.errors import InvalidRequest, LongspanError
from longspan.server.identity import Tenant
from longspan.server.services.endings import end_with
from longspan.server.services.places import Places
from longspan.server.services.statuses import to_status
from longspan.server.services.wire import malformed

Context = grpc.aio.ServicerContext[Any, Any]


class OneMessage:
    """Makes handlers that run before their message is there, and wait for it within bounds."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def bounded(
        self,
        handler: Any,
        whose: Callable[[Context], Tenant | None],
        *,
        wait_s: float,
        lasts: bool = False,
    ) -> Any:
        """The same handler within the bounds.

        Args:
            handler: of one message, and of one answer or many.
            whose: the caller; None is anybody. May raise what the call is refused by.
            wait_s: for the message, and for one answer to be taken.
            lasts: the call holds its place until it ends, not until its message has come.
        """

        async def answer(_: object, context: Context) -> None:
            try:
                tenant = whose(context)
                with self._places.held(tenant, watching=lasts):
                    request = await _request(context, wait_s)
                    if lasts:
                        await handler.unary_stream(request, context)
                        return
            except LongspanError as error:
                await refuse(context, error)
            if handler.unary_stream:
                await handler.unary_stream(request, context)
                return
            response = await handler.unary_unary(request, context)
            try:
                with self._places.held(tenant):
                    await _write(context, response, wait_s)
            except LongspanError as error:
                await refuse(context, error)

        # Handlers of streams alone run before the message is there.
        return grpc.stream_stream_rpc_method_handler(
            answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


async def refuse(context: Context, error: LongspanError) -> None:
    """End a call with an error's status."""
    await end_with(context, to_status(error))


async def _request(context: Context, wait_s: float) -> Any:
    call = current_call()
    if call is not None:
        call.silent = True
    try:
        async with asyncio.timeout(wait_s):
            message = await context.read()
    except TimeoutError:
        raise InvalidRequest(f"no message came within {wait_s:g} s", field="") from None
    except DecodeError:
        raise malformed() from None
    if call is not None:
        call.silent = False
    if message is grpc.aio.EOF:
        raise InvalidRequest("there was no message", field="")
    return message


async def _write(context: Context, response: Any, wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            await context.write(response)
    except TimeoutError:
        # Whoever does not take an answer takes no status.
        raise asyncio.CancelledError from None
