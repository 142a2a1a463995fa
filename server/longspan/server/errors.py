"""Everything that can go wrong in a way the caller should know about.

    LongspanError
    ├── Unauthenticated               refusal
    ├── InvalidRequest                field
    │   ├── InvalidUtf8               byte_offset
    │   ├── ChunkTooLarge
    │   ├── ChunkConflict
    │   ├── EmptyDocument
    │   ├── DocumentTooLarge
    │   ├── LengthMismatch
    │   ├── QuestionTooLong
    │   └── PromptTooLong             tokens, limit_tokens
    ├── ChunkOutOfOrder               expected, actual
    ├── DigestMismatch
    ├── UploadIncomplete              upload_id, committed_bytes
    ├── UploadMissing
    ├── UploadBusy
    ├── DocumentMissing
    ├── DocumentQuarantined
    ├── DecoderRequired
    ├── QuotaExceeded                 quota, used, limit
    ├── QueueFull                     retry_after_s
    ├── RateLimited                   retry_after_s
    ├── DiskFull                      retry_after_s
    ├── DeadlineExceeded
    ├── EncodeFailed
    ├── GenerationFailed
    └── Unavailable                   retry_after_s
        ├── WorkersUnavailable
        └── Draining

``statuses.py`` maps each class to a gRPC status and a reason; the client raises
exceptions of the same names. ``ConfigError`` stands apart: it ends the process.
"""

from __future__ import annotations

from longspan.server.auth.refusal import Refusal


class LongspanError(Exception):
    """Base of all errors that reach a caller."""

    @property
    def metadata(self) -> dict[str, str]:
        """Machine-readable details, sent as ``ErrorInfo.metadata``."""
        return {}


class Unauthenticated(LongspanError):
    """The caller is nobody that this server knows.

    Callers are told whether they sent a credential, and not what is wrong with it.

    Attributes:
        refusal: why, for the server's own counters and log.
    """

    def __init__(self, refusal: Refusal) -> None:
        missing = refusal is Refusal.MISSING
        super().__init__("no credential was sent" if missing else "the credential is not valid")
        self.refusal = refusal


class InvalidRequest(LongspanError):
    """The request breaks a rule that no retry will change.

    Attributes:
        field: path of the offending field, as in ``commit.sha256``.
    """

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field

    @property
    def metadata(self) -> dict[str, str]:
        """The field's path."""
        return {"field": self.field}


class InvalidUtf8(InvalidRequest):
    """The document is not UTF-8.

    Attributes:
        byte_offset: position of the first byte that cannot be decoded.
    """

    def __init__(self, byte_offset: int) -> None:
        super().__init__(f"invalid UTF-8 at byte {byte_offset}", field="chunk.data")
        self.byte_offset = byte_offset

    @property
    def metadata(self) -> dict[str, str]:
        """The field's path and the offset."""
        return {**super().metadata, "byte_offset": str(self.byte_offset)}


class ChunkTooLarge(InvalidRequest):
    """A chunk holds more bytes than the server takes at once."""


class ChunkConflict(InvalidRequest):
    """A chunk was sent again with other bytes."""


class EmptyDocument(InvalidRequest):
    """A document must hold at least one byte."""


class DocumentTooLarge(InvalidRequest):
    """The document is longer than the configured limit."""


class LengthMismatch(InvalidRequest):
    """``Commit.length`` differs from the bytes received."""


class QuestionTooLong(InvalidRequest):
    """The question has more tokens than the model reads."""


class PromptTooLong(InvalidRequest):
    """The documents and the task have more tokens than the model can hold.

    Attributes:
        tokens: of the prompt, as far as it was counted; 0 when a worker did the counting.
        limit_tokens: what the model can hold, likewise.
    """

    def __init__(self, tokens: int, limit_tokens: int, message: str = "") -> None:
        said = f"the prompt has {tokens} tokens or more; this model takes {limit_tokens - 1}"
        super().__init__(message or said, field="document")
        self.tokens = tokens
        self.limit_tokens = limit_tokens

    @classmethod
    def said_by_worker(cls, message: str) -> PromptTooLong:
        """What a worker found to be too long."""
        return cls(0, 0, message)

    @property
    def metadata(self) -> dict[str, str]:
        """The field's path and both counts."""
        counts = {"tokens": str(self.tokens), "limit_tokens": str(self.limit_tokens)}
        return {**super().metadata, **counts}


class ChunkOutOfOrder(LongspanError):
    """A chunk leaves a gap or overlaps bytes received earlier.

    Attributes:
        expected: the offset the server was waiting for.
        actual: the offset of the chunk.
    """

    def __init__(self, expected: int, actual: int) -> None:
        kind = "gap" if actual > expected else "overlap"
        super().__init__(f"{kind}: chunk at byte {actual}, expected byte {expected}")
        self.expected = expected
        self.actual = actual

    @property
    def metadata(self) -> dict[str, str]:
        """Both offsets."""
        return {"expected": str(self.expected), "actual": str(self.actual)}


class DigestMismatch(LongspanError):
    """The bytes received are not the bytes the client hashed; the upload is discarded."""


class UploadIncomplete(LongspanError):
    """The stream ended without a Commit; the upload can be resumed.

    Attributes:
        upload_id: what to resume.
        committed_bytes: where to resume.
    """

    def __init__(self, upload_id: str, committed_bytes: int) -> None:
        super().__init__(
            f"the stream ended without a commit: resume {upload_id} at byte {committed_bytes}"
        )
        self.upload_id = upload_id
        self.committed_bytes = committed_bytes

    @property
    def metadata(self) -> dict[str, str]:
        """What to resume, and where."""
        return {"upload_id": self.upload_id, "committed_bytes": str(self.committed_bytes)}


class UploadMissing(LongspanError):
    """No upload of this id is open: it never was, it was completed, or it expired."""


class UploadBusy(LongspanError):
    """Another stream is sending this upload."""


class DocumentMissing(LongspanError):
    """The caller has no document of this id."""


class DocumentQuarantined(LongspanError):
    """The document killed workers and is not tried again."""


class DecoderRequired(LongspanError):
    """The task needs a generating model, and none is loaded."""


class QuotaExceeded(LongspanError):
    """The tenant keeps as much as it may; it can delete something.

    Attributes:
        quota: "documents" or "bytes".
        used: of it, by documents and by open uploads.
        limit: of both.
    """

    def __init__(self, quota: str, used: int, limit: int) -> None:
        super().__init__(
            f"the quota of {limit} {quota} is used up: documents and open uploads have {used}; "
            "delete documents, or wait until uploads expire"
        )
        self.quota = quota
        self.used = used
        self.limit = limit

    @property
    def metadata(self) -> dict[str, str]:
        """Which quota, and both numbers."""
        return {"quota": self.quota, "used": str(self.used), "limit": str(self.limit)}


class _RetryLater(LongspanError):
    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(_RetryLater):
    """The server has as much work as it accepts."""


class RateLimited(_RetryLater):
    """The tenant asks faster, or more at once, than it may."""


class DiskFull(_RetryLater):
    """The data directory has no room; what was acknowledged is kept."""


def disk_full() -> DiskFull:
    """The one wording of a full disk."""
    return DiskFull("the data directory is full; what was acknowledged is kept", retry_after_s=30.0)


def too_many_files() -> QueueFull:
    """The one wording of a process that may open no further file."""
    return QueueFull("the server has as many files open as it may", retry_after_s=1.0)


class DeadlineExceeded(LongspanError):
    """The caller's deadline passed, or cannot be met."""


class EncodeFailed(LongspanError):
    """The worker refused one job and lives on."""


class GenerationFailed(LongspanError):
    """The worker gave up one sequence and lives on."""


class Unavailable(_RetryLater):
    """The server cannot take this call now."""


class WorkersUnavailable(Unavailable):
    """No worker is ready."""


class Draining(Unavailable):
    """The server is shutting down and takes no new work."""


class ConfigError(Exception):
    """The configuration cannot be used; the process says why and exits with status 2."""


class ServingFailed(Exception):
    """A port that should be served is served no more; the process ends with status 1."""
