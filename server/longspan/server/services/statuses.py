"""The one table from domain errors to gRPC statuses (AIP-193)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from longspan.server import errors

DOMAIN = "longspan"
# The caller's own words may be in a message; a status beyond gRPC's limit on metadata
# would be lost as a whole.
MESSAGE_CHARS = 500

STATUSES: Mapping[type[errors.LongspanError], StatusCode] = {
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.InvalidRequest: StatusCode.INVALID_ARGUMENT,
    errors.InvalidUtf8: StatusCode.INVALID_ARGUMENT,
    errors.ChunkTooLarge: StatusCode.INVALID_ARGUMENT,
    errors.ChunkConflict: StatusCode.INVALID_ARGUMENT,
    errors.EmptyDocument: StatusCode.INVALID_ARGUMENT,
    errors.DocumentTooLarge: StatusCode.INVALID_ARGUMENT,
    errors.LengthMismatch: StatusCode.INVALID_ARGUMENT,
    errors.QuestionTooLong: StatusCode.INVALID_ARGUMENT,
    errors.PromptTooLong: StatusCode.INVALID_ARGUMENT,
    errors.ChunkOutOfOrder: StatusCode.OUT_OF_RANGE,
    errors.DigestMismatch: StatusCode.DATA_LOSS,
    errors.UploadIncomplete: StatusCode.ABORTED,
    errors.UploadMissing: StatusCode.NOT_FOUND,
    errors.UploadBusy: StatusCode.ABORTED,
    errors.DocumentMissing: StatusCode.NOT_FOUND,
    errors.DocumentQuarantined: StatusCode.FAILED_PRECONDITION,
    errors.DecoderRequired: StatusCode.FAILED_PRECONDITION,
    errors.QuotaExceeded: StatusCode.RESOURCE_EXHAUSTED,
    errors.QueueFull: StatusCode.RESOURCE_EXHAUSTED,
    errors.RateLimited: StatusCode.RESOURCE_EXHAUSTED,
    errors.DiskFull: StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    errors.EncodeFailed: StatusCode.INTERNAL,
    errors.GenerationFailed: StatusCode.INTERNAL,
    errors.Unavailable: StatusCode.UNAVAILABLE,
    errors.WorkersUnavailable: StatusCode.UNAVAILABLE,
    errors.Draining: StatusCode.UNAVAILABLE,
}


def reason(error: type[errors.LongspanError]) -> str:
    """The class's name in capitals with underscores: ``QueueFull`` is ``QUEUE_FULL``."""
    name = error.__name__
    return "".join(
        f"_{letter}" if letter.isupper() and position else letter
        for position, letter in enumerate(name)
    ).upper()


def to_status(error: errors.LongspanError) -> status_pb2.Status:
    """Build the rich status of a domain error: ErrorInfo, and RetryInfo or BadRequest."""
    details = [_info(reason(type(error)), error.metadata)]
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(retry_after_s * 1000))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    if isinstance(error, errors.InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=_short(str(error))
        )
        details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    return status_pb2.Status(
        code=STATUSES[type(error)].value[0], message=_short(str(error)), details=details
    )


def _short(message: str) -> str:
    return message if len(message) <= MESSAGE_CHARS else f"{message[:MESSAGE_CHARS]}..."


def fault_status() -> tuple[str, status_pb2.Status]:
    """An opaque INTERNAL status and the id under which the cause is logged."""
    error_id = uuid.uuid4().hex[:12]
    return error_id, status_pb2.Status(
        code=StatusCode.INTERNAL.value[0],
        message=f"internal error {error_id}",
        details=[_info("INTERNAL", {"error_id": error_id})],
    )


def name_request(status: status_pb2.Status, request_id: str) -> None:
    """Add the id under which the server's log and traces know the request."""
    status.details.append(_pack(error_details_pb2.RequestInfo(request_id=request_id)))


def _info(reason: str, metadata: Mapping[str, str]) -> any_pb2.Any:
    return _pack(
        error_details_pb2.ErrorInfo(
            reason=reason, domain=DOMAIN, metadata={k: _short(v) for k, v in metadata.items()}
        )
    )


def _pack(
    message: error_details_pb2.ErrorInfo
    | error_details_pb2.RetryInfo
    | error_details_pb2.BadRequest
    | error_details_pb2.RequestInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
