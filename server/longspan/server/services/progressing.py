"""What a caller is told about a request while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from longspan.server.index.running import RunningBuild
from longspan.server.services.wire import Outbox
from longspan.server.store.records import StoredDocument
from longspan.server.upload.session import Session
from longspan.v1 import document_pb2

TICK_S = 0.5


async def _nothing() -> None:
    return


class Progressing:
    """The progress of one request, put together from its parts.

    Attributes:
        stage: what is going on.
        session: the upload, while there is one.
        build: the index being made.
        total_bytes: 0 until it is known.
        acknowledge: acknowledges bytes kept since the last Ack.
    """

    def __init__(self, position: Callable[[], int]) -> None:
        self._position = position
        self._found_passages = 0
        self._document: StoredDocument | None = None
        self.stage: document_pb2.Stage = document_pb2.STAGE_UPLOADING
        self.session: Session | None = None
        self.build: RunningBuild | None = None
        self.total_bytes = 0
        self.acknowledge: Callable[[], Awaitable[None]] = _nothing

    def received(self, document: StoredDocument) -> None:
        """All bytes are here."""
        self._document = document
        self.total_bytes = document.size_bytes
        self.stage = document_pb2.STAGE_INDEXING

    def found(self, document: StoredDocument, passages: int) -> None:
        """The index was there before."""
        self.received(document)
        self._found_passages = passages
        self.build = None

    def message(self) -> document_pb2.Progress:
        """What can be told now."""
        message = document_pb2.Progress(
            stage=self.stage,
            bytes_received=self.session.committed_bytes if self.session else self.total_bytes,
            bytes_total=self.total_bytes,
            queue_position=self._position(),
        )
        if self.build is not None:
            message.tokens = self.build.progress.tokens
            message.passages = self.build.progress.passages
            message.passages_embedded = self.build.progress.embedded
        elif self._document is not None:
            message.tokens = self._document.tokens
            message.passages = self._found_passages
            message.passages_embedded = self._found_passages
            message.passages_cached = self._found_passages
        return message

    async def report(self, outbox: Outbox) -> None:
        """Send what can be told now."""
        await self.acknowledge()
        await outbox.send(progress=self.message())

    async def keep_reporting(self, outbox: Outbox) -> None:
        """Report twice a second until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            await self.report(outbox)
