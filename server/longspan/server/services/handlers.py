"""gRPC's handlers of several kinds, for those who replace what one does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

Behaviour = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]
Deserialize = Callable[[bytes], Any]


async def rewritten(
    continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
    details: grpc.HandlerCallDetails,
    rewrite: Callable[[Behaviour, str], Behaviour],
    deserializing: Callable[[Deserialize], Deserialize] = lambda plain: plain,
) -> Any:
    """The next handler with another behaviour, where it is one of the API's.

    Args:
        continuation, details: what an interceptor is given.
        rewrite: makes the behaviour from the handler's own and from the method's name, as in
            ``longspan.v1.InferenceService/Analyze``.
        deserializing: likewise for what reads requests.
    """
    handler = await continuation(details)
    if handler is None or not details.method.startswith("/longspan."):
        return handler
    make, behaviour = _kind_of(handler)
    return make(
        rewrite(behaviour, details.method.removeprefix("/")),
        request_deserializer=deserializing(handler.request_deserializer),
        response_serializer=handler.response_serializer,
    )


def _kind_of(handler: Any) -> tuple[Callable[..., Any], Behaviour]:
    """What makes a handler of the same kind, and what this one does."""
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler, handler.unary_unary
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    assert handler.stream_stream
    return grpc.stream_stream_rpc_method_handler, handler.stream_stream
