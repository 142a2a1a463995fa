"""Everything that can go wrong, by name.

    LongspanError                     reason, code, message, metadata, retry_after_s, request_id
    ├── Unauthenticated
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
    ├── QueueFull
    ├── RateLimited
    ├── DiskFull
    ├── DeadlineExceeded
    ├── EncodeFailed
    ├── GenerationFailed
    ├── Unavailable
    │   ├── WorkersUnavailable
    │   └── Draining
    │                                 known to the client alone:
    ├── ServerUnavailable             no connection
    │   └── ConnectionLost            the connection broke during a call
    ├── PlaintextKey
    ├── ServerFault                   error_id
    ├── ProtocolError
    ├── AnswerChanged
    ├── SourceSpent
    ├── UnsupportedFile
    └── ClientClosed

Those above the gap have the names of the server's own errors.
"""

from __future__ import annotations

from collections.abc import Mapping


class LongspanError(Exception):
    """Base of all errors of the client.

    Attributes:
        message: what happened, for people.
        reason: what happened, for programs: the class's name in capitals, as in
            ``QUEUE_FULL``; empty when the client found the error itself.
        code: name of the gRPC status, as in ``NOT_FOUND``; empty likewise.
        metadata: details by name, as the server sent them.
        retry_after_s: when the server asks to try again, or None.
        request_id: under which the server's log knows the call; empty where it told none.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        code: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.retry_after_s = retry_after_s
        self.request_id = request_id

    def _number(self, name: str) -> int | None:
        value = self.metadata.get(name, "")
        return int(value) if value.isdecimal() else None


class Unauthenticated(LongspanError):
    """The server wants a key, a token or a certificate, or does not accept the one it got."""


class InvalidRequest(LongspanError):
    """The request breaks a rule that no retry will change."""

    @property
    def field(self) -> str:
        """Path of the offending field, as in ``commit.sha256``."""
        return self.metadata.get("field", "")


class InvalidUtf8(InvalidRequest):
    """The document is not UTF-8."""

    @property
    def byte_offset(self) -> int | None:
        """Position of the first byte that cannot be decoded."""
        return self._number("byte_offset")


class ChunkTooLarge(InvalidRequest):
    """A chunk holds more bytes than the server takes at once."""


class ChunkConflict(InvalidRequest):
    """Bytes were sent again with other content: the source changed while it was sent."""


class EmptyDocument(InvalidRequest):
    """A document must hold at least one byte."""


class DocumentTooLarge(InvalidRequest):
    """The document is longer than the server's limit."""


class LengthMismatch(InvalidRequest):
    """The document is not as long as it was declared."""


class QuestionTooLong(InvalidRequest):
    """The question has more tokens than the model reads."""


class PromptTooLong(InvalidRequest):
    """The documents and the task have more tokens than the decoder can hold."""

    @property
    def tokens(self) -> int | None:
        """Tokens of the prompt as far as they were counted; 0 where that is not known."""
        return self._number("tokens")

    @property
    def limit_tokens(self) -> int | None:
        """What the decoder can hold; 0 where that is not known."""
        return self._number("limit_tokens")


class ChunkOutOfOrder(LongspanError):
    """A chunk left a gap or overlapped bytes sent earlier."""

    @property
    def expected(self) -> int | None:
        """The offset the server was waiting for."""
        return self._number("expected")

    @property
    def actual(self) -> int | None:
        """The offset of the chunk."""
        return self._number("actual")


class DigestMismatch(LongspanError):
    """The bytes received are not the bytes that were hashed; the upload is discarded."""


class UploadIncomplete(LongspanError):
    """The stream ended before the document was complete; the upload can be resumed."""

    @property
    def upload_id(self) -> str:
        """What to resume."""
        return self.metadata.get("upload_id", "")

    @property
    def committed_bytes(self) -> int | None:
        """Where to resume."""
        return self._number("committed_bytes")


class UploadMissing(LongspanError):
    """The server has no open upload of this id."""


class UploadBusy(LongspanError):
    """Another stream is sending this upload."""


class DocumentMissing(LongspanError):
    """The server has no document of this id."""


class DocumentQuarantined(LongspanError):
    """The document killed workers and is not tried again."""


class DecoderRequired(LongspanError):
    """The task needs a generating model, and the server has none loaded."""


class QuotaExceeded(LongspanError):
    """The tenant has as many documents, or bytes of them, as it may: delete some."""

    @property
    def quota(self) -> str:
        """What is used up: "documents" or "bytes"."""
        return self.metadata.get("quota", "")

    @property
    def used(self) -> int | None:
        """How much of it is taken, by documents and by open uploads."""
        return self._number("used")

    @property
    def limit(self) -> int | None:
        """How much of it there is."""
        return self._number("limit")


class QueueFull(LongspanError):
    """The server has as much work as it accepts."""


class RateLimited(LongspanError):
    """The tenant asks faster, or more at once, than it may."""


class DiskFull(LongspanError):
    """The server's disk has no room; what was acknowledged is kept."""


class DeadlineExceeded(LongspanError):
    """The call took longer than its timeout allows."""


class EncodeFailed(LongspanError):
    """The worker refused one job and lives on."""


class GenerationFailed(LongspanError):
    """The decoder gave one answer up and lives on."""


class Unavailable(LongspanError):
    """The server answered that it cannot take this call now."""


class WorkersUnavailable(Unavailable):
    """No worker is ready."""


class Draining(Unavailable):
    """The server is shutting down and takes no new work."""


class ServerUnavailable(LongspanError):
    """There is no connection to the server."""


class ConnectionLost(ServerUnavailable):
    """The connection broke during a call, and trying again did not help."""


class PlaintextKey(LongspanError):
    """A key would have been sent unencrypted to another machine; nothing was sent."""


class ServerFault(LongspanError):
    """The server failed in a way it does not explain; its log does, under ``error_id``."""

    @property
    def error_id(self) -> str:
        """Under which the cause stands in the server's log; may be empty."""
        return self.metadata.get("error_id", "")


class ProtocolError(LongspanError):
    """The server sent something the protocol does not allow."""


class AnswerChanged(LongspanError):
    """A repeated request gave another answer than the one delivered in part."""


class SourceSpent(LongspanError):
    """The server asks for bytes that are no longer held, and the source cannot be read again."""


class UnsupportedFile(LongspanError):
    """The file is of a kind that the client cannot read."""


class ClientClosed(LongspanError):
    """The client was used after it was closed."""
