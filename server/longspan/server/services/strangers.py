"""Calls that anybody may make: few at once, and none that waits for long."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

AT_ONCE = 64


class Strangers:
    """Bounds the calls that are answered without a credential.

    Every call takes one of the server's places, also while its message has not come: strangers
    must not take them all.

    Args:
        wait_s: for a call's message.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._waiting = 0

    def bounded(self, handler: Any) -> Any:
        """The same handler of one message and one answer, within the bounds."""

        async def answer(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            request = await self._message(context)
            await context.write(await handler.unary_unary(request, context))

        # Handlers of streams alone run before the message is there.
        return grpc.stream_stream_rpc_method_handler(
            answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _message(self, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if self._waiting >= AT_ONCE:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{AT_ONCE} such calls wait for their message"
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                message = await context.read()
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing was sent for {self._wait_s:g} s"
            )
        finally:
            self._waiting -= 1
        if message is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there was no message")
        return message
