"""gRPC's handlers of several kinds, for those who replace what one does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from longspan.v1 import cache_service_pb2, document_service_pb2, inference_service_pb2

Behaviour = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


def kind_of(handler: Any) -> tuple[Callable[..., Any], Behaviour]:
    """What makes a handler of the same kind, and what this one does."""
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler, handler.unary_unary
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    assert handler.stream_stream
    return grpc.stream_stream_rpc_method_handler, handler.stream_stream


def methods() -> frozenset[str]:
    """Every method of the API, as in ``longspan.v1.InferenceService/Analyze``."""
    files = (cache_service_pb2, document_service_pb2, inference_service_pb2)
    return frozenset(
        f"{service.full_name}/{method.name}"
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    )
