"""Which errors are refusals, by the reason that their rich status has."""

from __future__ import annotations

from collections.abc import Iterable

from google.rpc import error_details_pb2, status_pb2

from longspan.server import errors
from longspan.server.services.statuses import STATUSES, reason

DETAILS_KEY = "grpc-status-details-bin"
# What went wrong with work that had been taken.
FAILURES = frozenset(
    {
        errors.DeadlineExceeded,
        errors.DigestMismatch,
        errors.EncodeFailed,
        errors.GenerationFailed,
        errors.UploadIncomplete,
    }
)
REASONS = frozenset(reason(error) for error in STATUSES if error not in FAILURES)


def refusal_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    """The reason in a call's trailing metadata, if it is that of a refusal."""
    for key, value in metadata or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            named = _reason(value)
            return named if named in REASONS else None
    return None


def _reason(data: bytes) -> str:
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(data).details:
        if detail.Unpack(info):
            return str(info.reason)
    return ""
