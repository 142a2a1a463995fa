"""One stream's hold on one upload: the state machine driven over spool and library."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Protocol, Self

from longspan.server.aio import in_thread
from longspan.server.errors import (
    ChunkConflict,
    DigestMismatch,
    InvalidRequest,
    InvalidUtf8,
    LengthMismatch,
    QuotaExceeded,
)
from longspan.server.index.growth import Growth
from longspan.server.limits import Limits
from longspan.server.store.library import Library
from longspan.server.store.records import OpenUpload, StoredDocument
from longspan.server.upload.machine import (
    Append,
    Chunk,
    Commit,
    Compare,
    Ended,
    Matched,
    Mismatched,
    Receiving,
    Upload,
    Verifying,
)
from longspan.server.upload.spool import Spool


class Session(Protocol):
    """What a stream needs of an upload."""

    upload: OpenUpload

    @property
    def committed_bytes(self) -> int:
        """Bytes kept; a resumed upload goes on here."""
        ...

    def watch(self) -> Growth:
        """The bytes kept so far and those to come, for one reader behind, who closes it."""
        ...

    async def chunk(self, offset: int, data: bytes) -> None:
        """Keep one chunk."""
        ...

    async def commit(self, length: int, sha256: str) -> StoredDocument:
        """Verify the whole and make it a document."""
        ...

    async def close(self) -> None:
        """Let go of the files."""
        ...


class ReceivingSession:
    """Takes chunks and a commit; leaves either a document or a resumable upload.

    Attributes:
        upload: the row of the upload.
    """

    def __init__(
        self,
        upload: OpenUpload,
        spool: Spool,
        *,
        library: Library,
        limits: Limits,
        threads: Executor,
    ) -> None:
        self.upload = upload
        self._growth: Growth | None = None
        self._spool = spool
        self._library = library
        self._threads = threads
        self._reserved_bytes = upload.reserved_bytes
        self._machine = Upload(
            received=spool.size_bytes, declared=upload.declared_bytes, limits=limits
        )

    @classmethod
    async def open(
        cls, upload: OpenUpload, *, library: Library, limits: Limits, threads: Executor
    ) -> Self:
        """Open the spool; bytes of an earlier stream are hashed and checked again."""
        path = library.vault.spool(upload.upload_id)
        try:
            spool = await in_thread(
                threads, lambda: Spool(path, free_space_bytes=limits.free_space_bytes)
            )
        except InvalidUtf8:
            await library.discard_upload(upload)
            raise
        return cls(upload, spool, library=library, limits=limits, threads=threads)

    @property
    def committed_bytes(self) -> int:
        """Bytes kept; a resumed upload goes on here."""
        return self._spool.size_bytes

    def watch(self) -> Growth:
        """The bytes kept so far and those to come, for one reader behind, who closes it."""
        self._growth = Growth(self._spool.path, size_bytes=self.committed_bytes, complete=False)
        return self._growth

    async def chunk(self, offset: int, data: bytes) -> None:
        """Keep one chunk.

        Raises:
            LongspanError: the chunk does not fit, is not text, the tenant's quota is used up (the
                upload is discarded), or the disk is full (it can go on).
        """
        effect = self._machine.handle(Chunk(offset, len(data)))
        try:
            match effect:
                case Append():
                    await self._reserve(self.committed_bytes + len(data))
                    await in_thread(self._threads, lambda: self._spool.append(data))
                    if self._growth is not None:
                        self._growth.grow(self.committed_bytes)
                case Compare(start):
                    await in_thread(self._threads, lambda: self._spool.compare(start, data))
        except (InvalidUtf8, QuotaExceeded):
            await self._discard()
            raise

    async def commit(self, length: int, sha256: str) -> StoredDocument:
        """Verify the whole and make it a document.

        Raises:
            LongspanError: length or digest differ, or the text ends within a code point.
        """
        self._machine.handle(Commit(length, sha256))
        try:
            actual = await in_thread(self._threads, self._spool.finish)
        except InvalidUtf8:
            await self._discard()
            raise
        if actual != sha256:
            self._machine.handle(Mismatched())
            await self._discard()
            raise DigestMismatch(f"the {length} bytes received hash to {actual}, not {sha256}")
        document = await self._library.keep(
            self.upload, size_bytes=length, size_chars=self._spool.size_chars, sha256=sha256
        )
        self._machine.handle(Matched())
        if self._growth is not None:
            self._growth.finish()
        return document

    async def close(self) -> None:
        """Let go of the file; an upload without a commit stays resumable."""
        if isinstance(self._machine.state, Receiving | Verifying):
            self._machine.handle(Ended())
        await in_thread(self._threads, self._spool.close)

    async def _reserve(self, size_bytes: int) -> None:
        """Take the room for so many bytes in the tenant's quota."""
        if size_bytes > self._reserved_bytes:
            self._reserved_bytes = await self._library.reserve(
                self.upload, self._reserved_bytes, size_bytes
            )

    async def _discard(self) -> None:
        await self._library.discard_upload(self.upload)


class ReplayedSession:
    """A stream that resumes an upload whose document is stored already.

    The client did not hear that its commit succeeded; it is told again.
    """

    def __init__(
        self, upload: OpenUpload, document: StoredDocument, *, library: Library, threads: Executor
    ) -> None:
        self.upload = upload
        self._document = document
        self._threads = threads
        self._content = library.vault.content(document)
        self._growth = Growth.of_complete(self._content)

    @property
    def committed_bytes(self) -> int:
        """All of it."""
        return self._document.size_bytes

    def watch(self) -> Growth:
        """All of it, for a reader who closes it."""
        return Growth.of_complete(self._content)

    async def chunk(self, offset: int, data: bytes) -> None:
        """Accept bytes that are the document's own.

        Raises:
            InvalidRequest: the chunk is malformed.
            ChunkConflict: they are not.
        """
        if not data or offset < 0:
            raise InvalidRequest("a chunk needs data and a position", field="chunk")
        kept = await in_thread(self._threads, lambda: self._growth.read(offset, len(data)))
        if kept != data:
            raise ChunkConflict(
                f"bytes at {offset} were sent before with other content", field="chunk.data"
            )

    async def commit(self, length: int, sha256: str) -> StoredDocument:
        """The document again.

        Raises:
            LengthMismatch, DigestMismatch: the client means another document.
        """
        if length != self._document.size_bytes:
            raise LengthMismatch(
                f"commit says {length} bytes, {self._document.size_bytes} received",
                field="commit.length",
            )
        if sha256 != self._document.sha256:
            raise DigestMismatch(f"the bytes received hash to {self._document.sha256}")
        return self._document

    async def close(self) -> None:
        """Close the file."""
        self._growth.close()
