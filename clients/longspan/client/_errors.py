"""From a gRPC failure to the exception of the same name as the server's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from longspan.client import _exceptions
from longspan.client._exceptions import LongspanError

DOMAIN = "longspan"

_BY_CODE: Mapping[grpc.StatusCode, type[LongspanError]] = {
    grpc.StatusCode.UNAVAILABLE: _exceptions.ConnectionLost,
    # The client's own cancelling never gets here: something between cut the call.
    grpc.StatusCode.CANCELLED: _exceptions.ConnectionLost,
    grpc.StatusCode.DEADLINE_EXCEEDED: _exceptions.DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: _exceptions.Unauthenticated,
    grpc.StatusCode.INTERNAL: _exceptions.ServerFault,
    grpc.StatusCode.UNKNOWN: _exceptions.ServerFault,
}

# What grpc.aio puts in the place of the status when closing a broken stream fails.
_BROKEN_WRITE = "Internal error from Core"


class Failure(Protocol):
    """A finished call, or the error that it raised; of both of grpc's interfaces."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...


def translate(failure: Failure) -> LongspanError:
    """The exception to raise for a failed call."""
    code = failure.code()
    status = _rich_status(failure)
    info, retry_after_s = _details(status)
    if failure.details() == _BROKEN_WRITE:
        kind: type[LongspanError] = _exceptions.ConnectionLost
    elif info is None:
        kind = _BY_CODE.get(code, LongspanError)
    else:
        kind = _by_reason().get(info.reason, _BY_CODE.get(code, LongspanError))
    return kind(
        failure.details() or code.name,
        reason=info.reason if info else "",
        code=code.name,
        metadata=dict(info.metadata) if info else None,
        retry_after_s=retry_after_s,
        request_id=_request_id(status),
    )


def reason_of(name: str) -> str:
    """A class's name in capitals with underscores: ``QueueFull`` is ``QUEUE_FULL``."""
    return "".join(f"_{c}" if c.isupper() and at else c for at, c in enumerate(name)).upper()


def _by_reason() -> Mapping[str, type[LongspanError]]:
    return {"INTERNAL": _exceptions.ServerFault} | {
        reason_of(name): kind
        for name, kind in vars(_exceptions).items()
        if isinstance(kind, type) and issubclass(kind, LongspanError)
    }


def _rich_status(failure: Failure) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(failure)  # type: ignore[arg-type]
    except ValueError:
        # A proxy replaced code or message; the details are about something else then.
        return None


def _details(
    status: status_pb2.Status | None,
) -> tuple[error_details_pb2.ErrorInfo | None, float | None]:
    info: error_details_pb2.ErrorInfo | None = None
    retry_after_s: float | None = None
    for packed in status.details if status else ():
        if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            found = error_details_pb2.ErrorInfo.FromString(packed.value)
            info = found if found.domain == DOMAIN else info
        elif packed.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry_after_s = _seconds(
                error_details_pb2.RetryInfo.FromString(packed.value).retry_delay
            )
    return info, retry_after_s


def _request_id(status: status_pb2.Status | None) -> str:
    for packed in status.details if status else ():
        if packed.Is(error_details_pb2.RequestInfo.DESCRIPTOR):
            return str(error_details_pb2.RequestInfo.FromString(packed.value).request_id)
    return ""


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
