"""The standard health check (``grpc.health.v1``), which needs two bytes of protocol."""

from __future__ import annotations

METHOD = "/grpc.health.v1.Health/Check"
# HealthCheckRequest{service: ""}: the server as a whole.
REQUEST = b""
# HealthCheckResponse{status: SERVING}: field 1, varint 1.
_SERVING = b"\x08\x01"


def is_serving(response: bytes) -> bool:
    """Whether a HealthCheckResponse says SERVING."""
    return response == _SERVING


def as_it_is(message: bytes) -> bytes:
    """Serializer and deserializer: the bytes are the message."""
    return message
