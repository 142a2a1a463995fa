"""gRPC's handlers of several kinds, for those who replace what one does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

Behaviour = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


def kind_of(handler: Any) -> tuple[Callable[..., Any], Behaviour]:
    """What makes a handler of the same kind, and what this one does."""
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler, handler.unary_unary
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    assert handler.stream_stream
    return grpc.stream_stream_rpc_method_handler, handler.stream_stream
