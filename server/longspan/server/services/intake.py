"""From a header to a stored, indexed document; serves Upload and Analyze alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from longspan.server.errors import DocumentQuarantined
from longspan.server.index.indexes import Indexes
from longspan.server.index.passage_index import PassageIndex
from longspan.server.index.running import RunningBuild
from longspan.server.limits import Limits
from longspan.server.metrics.documents import DocumentMetrics
from longspan.server.queue.job import Priority, Subject
from longspan.server.queue.request import RequestInfo, RequestStats
from longspan.server.services.admission import Call
from longspan.server.services.progressing import Progressing
from longspan.server.services.reception import Behind, Reception, accepted
from longspan.server.services.wire import Inbox, Outgoing
from longspan.server.store.records import StoredDocument
from longspan.server.tracing import names
from longspan.server.tracing.spans import span
from longspan.server.upload.desk import Header, UploadDesk
from longspan.server.upload.session import ReceivingSession, Session

BYTES_PER_TOKEN = 4

B = TypeVar("B", bound=Behind | None)
# Starts what runs behind an upload.
Follow = Callable[[Session], AbstractAsyncContextManager[B]]


@dataclass(frozen=True, slots=True, eq=False)
class Indexed:
    """A document that is ready to be asked."""

    document: StoredDocument
    index: PassageIndex
    cached: bool


class Intake:
    """Takes documents in and finds or builds their indexes.

    Args:
        indexes: None when the server runs without a model: documents are kept unindexed.
        metrics: count what is kept.
    """

    def __init__(
        self,
        desk: UploadDesk,
        indexes: Indexes | None,
        limits: Limits,
        metrics: DocumentMetrics,
    ) -> None:
        self._metrics = metrics
        self._desk = desk
        self._indexes = indexes
        self._limits = limits

    @asynccontextmanager
    async def upload(
        self,
        call: Call,
        header: Header,
        inbox: Inbox[Any],
        outbox: Outgoing,
        progress: Progressing,
        follow: Follow[B],
    ) -> AsyncIterator[tuple[StoredDocument, B]]:
        """Receive one document; what follows it runs as long as the block does."""
        async with self._desk.session(call.tenant, header) as (session, hold):
            progress.session = session
            progress.total_bytes = session.upload.declared_bytes or 0
            async with follow(session) as behind:
                await outbox.send(accepted=accepted(session, self._limits.chunk_bytes))
                reception = Reception(
                    session,
                    hold,
                    lambda ack: outbox.send(ack=ack),
                    self._metrics,
                    call.pace.keep,
                    behind,
                    progress.stir,
                )
                progress.acknowledge = reception.acknowledge
                with span(names.UPLOAD, {names.UPLOAD_ID: session.upload.upload_id}) as upload:
                    upload.set_attribute(names.RESUMED_AT, session.committed_bytes)
                    document = await reception.receive(inbox.read_unless_lost)
                    upload.set_attribute(names.BYTES, document.size_bytes)
                    upload.set_attribute(names.DOCUMENT_ID, document.document_id)
                progress.received(document)
                yield document, behind

    def build_behind(
        self, call: Call, priority: Priority, progress: Progressing, stats: RequestStats
    ) -> Follow[RunningBuild | None]:
        """Builds the index behind an upload, if there is an encoder."""

        @asynccontextmanager
        async def follow(session: Session) -> AsyncIterator[RunningBuild | None]:
            if self._indexes is None or not isinstance(session, ReceivingSession):
                yield None
                return
            upload = session.upload
            size_bytes = upload.declared_bytes or self._limits.document_bytes
            request = _request(call, upload.upload_id, size_bytes, priority, stats)
            build = progress.build = self._indexes.follow(session.watch(), request)
            try:
                yield build
            finally:
                await build.release()

        return follow

    async def index(
        self,
        call: Call,
        document: StoredDocument,
        priority: Priority,
        build: RunningBuild | None,
        progress: Progressing,
        stats: RequestStats,
    ) -> Indexed:
        """The index of a stored document: found, finished, or built now."""
        assert self._indexes is not None
        progress.received(document)
        index = await self._indexes.find(document)
        if index is not None:
            progress.found(index)
            return Indexed(document, index, cached=True)
        self._indexes.check(document)
        if build is not None:
            index = await self._finished(build, document)
        else:
            request = _request(call, document.document_id, document.size_bytes, priority, stats)
            async with self._indexes.join(document, request) as running:
                progress.build = running
                index = await running.result()
        document = await self._indexes.keep(document, index)
        return Indexed(document, index, cached=False)

    async def _finished(self, build: RunningBuild, document: StoredDocument) -> PassageIndex:
        """The end of a build that began before the document had an id."""
        assert self._indexes is not None
        try:
            return await build.result()
        except DocumentQuarantined:
            self._indexes.quarantine(document)
            raise


def _request(
    call: Call, subject: str, size_bytes: int, priority: Priority, stats: RequestStats
) -> RequestInfo:
    return RequestInfo(
        request_id=call.request_id,
        tenant=call.tenant,
        priority=priority,
        tokens=max(size_bytes // BYTES_PER_TOKEN, 1),
        # A shared build outlives the caller who began it; each caller's own deadline ends
        # its call, and the last one to leave stops the build.
        deadline_s=None,
        subject=Subject(subject),
        stats=stats,
    )
