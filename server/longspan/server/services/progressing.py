"""What a caller is told about a request while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from longspan.server.index.build import BuildProgress
from longspan.server.index.passage_index import PassageIndex
from longspan.server.index.running import RunningBuild
from longspan.server.services.wire import Outgoing
from longspan.server.store.records import StoredDocument
from longspan.server.tasks.generate import Generating
from longspan.server.upload.session import Session
from longspan.v1 import document_pb2

TICK_S = 0.5
# An upload that brings nothing new is looked at ever less often: thousands may be open and idle.
# Clients take a minute's silence for a broken connection.
LONGEST_SILENCE_S = 10.0


async def _nothing() -> None:
    return


class Progressing:
    """The progress of one request, put together from its parts.

    Attributes:
        stage: what is going on.
        session: the upload, while there is one.
        build: the index being made.
        generating: what a decoder reads and writes.
        total_bytes: 0 until it is known.
        acknowledge: acknowledges bytes kept since the last Ack.
    """

    def __init__(
        self,
        position: Callable[[], int],
        *,
        behind: document_pb2.Stage = document_pb2.STAGE_INDEXING,
    ) -> None:
        self._position = position
        self._behind = behind
        self._found: PassageIndex | None = None
        self._before = document_pb2.Progress()
        self._document: StoredDocument | None = None
        self.stage: document_pb2.Stage = document_pb2.STAGE_UPLOADING
        self.session: Session | None = None
        self.build: RunningBuild | None = None
        self.generating: Generating | None = None
        self.total_bytes = 0
        self.acknowledge: Callable[[], Awaitable[None]] = _nothing
        self._stirred = asyncio.Event()

    def received(self, document: StoredDocument) -> None:
        """All bytes are here; a further document adds to what was counted before."""
        before = self._document
        if before is not None and before.document_id != document.document_id:
            self._before = self.message()
            self.build = self._found = None
        self._document = document
        self.total_bytes = self._before.bytes_total + document.size_bytes
        self.stage = self._behind

    def waiting(self, total_bytes: int) -> None:
        """All bytes are here, and somebody else may be reading them."""
        self.total_bytes = total_bytes
        self.stage = self._behind

    def found(self, index: PassageIndex) -> None:
        """The index was there before."""
        self._found = index
        self.build = None

    def message(self) -> document_pb2.Progress:
        """What can be told now."""
        message = document_pb2.Progress(
            stage=self.stage,
            bytes_received=self.session.committed_bytes if self.session else self.total_bytes,
            bytes_total=self.total_bytes,
            queue_position=self._position(),
        )
        if self.generating is not None:
            message.tokens = self.generating.document_tokens
            message.tokens_prefilled = self.generating.prefilled
            message.tokens_cached = self.generating.cached
            return message
        done = self._counted()
        message.tokens = self._before.tokens + done.tokens
        message.passages = self._before.passages + done.passages
        message.passages_embedded = self._before.passages_embedded + done.embedded
        message.passages_cached = self._before.passages_cached + len(self._found or ())
        return message

    def _counted(self) -> BuildProgress:
        """The counters of the present document."""
        if self._found is not None:
            return BuildProgress(self._found.tokens, len(self._found), len(self._found))
        return BuildProgress() if self.build is None else self.build.progress

    async def report(self, outbox: Outgoing) -> None:
        """Send what can be told now."""
        await self.acknowledge()
        await outbox.send(progress=self.message())

    def stir(self) -> None:
        """Bytes have come: they are reported within a tick, however long none had."""
        self._stirred.set()

    async def keep_reporting(self, outbox: Outgoing) -> None:
        """Report twice a second until cancelled; an idle upload's report only when it is due."""
        loop = asyncio.get_running_loop()
        pause_s, told, told_s = 0.0, None, 0.0
        while True:
            self._stirred.clear()
            await asyncio.sleep(TICK_S)
            if pause_s:
                await self._rest(pause_s)
            message = self.message()
            idle = message == told and self.stage == document_pb2.STAGE_UPLOADING
            left_s = told_s + LONGEST_SILENCE_S - loop.time()
            if idle and left_s > 0:
                pause_s = min(2 * pause_s or TICK_S, left_s)
                continue
            pause_s = LONGEST_SILENCE_S if idle else 0.0
            told, told_s = message, loop.time()
            await self.report(outbox)

    async def _rest(self, pause_s: float) -> None:
        """Wait for bytes, so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stirred.wait()
