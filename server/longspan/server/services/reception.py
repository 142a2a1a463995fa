"""The receiving half of Upload and Analyze: the same conversation, other envelopes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from longspan.server.aio import cancel_and_wait
from longspan.server.errors import InvalidRequest, UploadIncomplete
from longspan.server.metrics.documents import DocumentMetrics
from longspan.server.store.records import StoredDocument
from longspan.server.upload.desk import Hold
from longspan.server.upload.session import Session
from longspan.v1 import upload_pb2

ACK_BYTES = 256 << 10


class Part(Protocol):
    """A client message after the header."""

    @property
    def chunk(self) -> upload_pb2.Chunk: ...
    @property
    def commit(self) -> upload_pb2.Commit: ...
    def WhichOneof(self, oneof_group: str) -> str | None: ...


class Behind(Protocol):
    """What runs behind the bytes: an index being built, or a decoder reading."""

    def check(self) -> None:
        """Raise the error that it has ended with, if it has."""
        ...


@dataclass(slots=True)
class Reception:
    """Takes parts until the commit, acknowledges what is kept.

    Attributes:
        session: the upload.
        hold: this stream's claim on it.
        ack: sends one Ack.
        metrics: count what is kept.
        pace: called with the bytes of each chunk; returns when more may be read, or the hold
            is lost.
        behind: ends the upload when it fails.
        stir: is told of each chunk that was kept.
    """

    session: Session
    hold: Hold
    ack: Callable[[upload_pb2.Ack], Awaitable[None]]
    metrics: DocumentMetrics
    pace: Callable[[int, Callable[[], bool]], Awaitable[None]]
    behind: Behind | None = None
    stir: Callable[[], None] = lambda: None
    _acknowledged: int = field(default=0)

    async def receive(self, read: Callable[[Hold], Awaitable[Part | None]]) -> StoredDocument:
        """Everything up to the commit.

        Raises:
            UploadIncomplete: the stream ended before; the upload can be resumed.
            LongspanError: a part was refused, or what runs behind failed.
        """
        self._acknowledged = self.session.committed_bytes
        part = await read(self.hold)
        while part is not None:
            match part.WhichOneof("part"):
                case "chunk":
                    chunk, part = part.chunk, None
                    reading = asyncio.ensure_future(read(self.hold))
                    try:
                        await self._take(chunk)
                        # The next one may be long in coming: nobody holds this one meanwhile.
                        del chunk
                        part = await reading
                    finally:
                        await cancel_and_wait(reading)
                case "commit":
                    commit = part.commit
                    return await self.session.commit(commit.length, commit.sha256)
                case _:
                    raise InvalidRequest("expected a chunk or a commit", field="part")
        raise UploadIncomplete(self.session.upload.upload_id, self.session.committed_bytes)

    async def acknowledge(self) -> None:
        """Tell the client what is kept, if it does not know yet."""
        committed = self.session.committed_bytes
        if committed > self._acknowledged:
            self._acknowledged = committed
            await self.ack(upload_pb2.Ack(committed_bytes=committed))

    async def _take(self, chunk: upload_pb2.Chunk) -> None:
        if self.behind is not None:
            self.behind.check()
        before = self.session.committed_bytes
        await self.session.chunk(chunk.offset, chunk.data)
        self.metrics.uploaded.inc(self.session.committed_bytes - before)
        self.stir()
        if self.session.committed_bytes - self._acknowledged >= ACK_BYTES:
            await self.acknowledge()
        await self.pace(len(chunk.data), lambda: self.hold.lost)


def accepted(session: Session, max_chunk_bytes: int) -> upload_pb2.Accepted:
    """The first answer of an upload."""
    return upload_pb2.Accepted(
        upload_id=session.upload.upload_id,
        committed_bytes=session.committed_bytes,
        max_chunk_bytes=max_chunk_bytes,
    )
