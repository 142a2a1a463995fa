"""Opens and resumes uploads; one stream at a time for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from longspan.server.errors import DiskFull, InvalidRequest, UploadBusy
from longspan.server.identity import Tenant, UploadId
from longspan.server.limits import Limits
from longspan.server.metrics.documents import DocumentMetrics
from longspan.server.store.library import Library
from longspan.server.store.records import OpenUpload
from longspan.server.upload.machine import check_length
from longspan.server.upload.session import ReceivingSession, ReplayedSession, Session

log = logging.getLogger(__name__)

MEDIA_TYPES = frozenset({"text/plain", "text/markdown"})
TAKEOVER_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Header:
    """How a client opens an upload; an empty ``upload_id`` starts a new one."""

    upload_id: UploadId
    title: str
    media_type: str
    declared_bytes: int | None


class Hold:
    """One stream's claim on an upload.

    Attributes:
        lost: True once a newer stream of the same upload takes over.
        released: set when the stream has let go.
        on_loss: called at that moment; the stream's own.
    """

    def __init__(self) -> None:
        self.lost = False
        self.released = asyncio.Event()
        self.on_loss: Callable[[], None] = lambda: None

    def lose(self) -> None:
        """A newer stream takes over."""
        self.lost = True
        self.on_loss()


class UploadDesk:
    """Where streams come to send a document.

    A client that lost its connection resumes at once; the server may still be waiting
    on the dead stream, which therefore yields to the newer one.
    """

    def __init__(
        self, library: Library, limits: Limits, threads: Executor, metrics: DocumentMetrics
    ) -> None:
        self._library = library
        self._metrics = metrics
        self._limits = limits
        self._threads = threads
        self._holds: dict[UploadId, Hold] = {}

    @property
    def streams(self) -> int:
        """Streams that are sending now."""
        return len(self._holds)

    async def expire(self) -> int:
        """Remove uploads whose lease has ended and that no stream sends; return how many."""
        return await self._library.expire_uploads(
            self._limits.upload_lease_s, spared=frozenset(self._holds)
        )

    @asynccontextmanager
    async def session(self, tenant: Tenant, header: Header) -> AsyncIterator[tuple[Session, Hold]]:
        """Open or resume; what was kept stays kept when the block is left early.

        Raises:
            InvalidRequest, DiskFull: the header is refused and nothing was stored.
            UploadMissing: there is nothing to resume.
            UploadBusy: the stream that holds the upload does not let go.
        """
        self._check(header)
        upload = await self._find(tenant, header)
        upload_id = upload.upload_id
        hold = await self._claim(upload_id)
        self._metrics.open.inc()
        try:
            if header.upload_id:
                # Looked up again: the stream that held the upload may have stored it meanwhile.
                upload = await self._library.find_upload(tenant, upload_id)
                await self._library.touch(upload)
            try:
                session = await self._open(upload)
            except BaseException:
                if not header.upload_id:
                    # Nobody was told its name: it would count until its lease ends.
                    await self._library.discard_upload(upload)
                raise
            try:
                yield session, hold
            finally:
                try:
                    await session.close()
                finally:  # also where the call is cancelled in the midst of that
                    await self._leave(upload, hold, session.committed_bytes)
        finally:
            del self._holds[upload_id]
            self._metrics.open.dec()
            hold.released.set()

    async def _leave(self, upload: OpenUpload, hold: Hold, committed_bytes: int) -> None:
        """Count the lease from now; an upload of which nothing was kept is forgotten."""
        if committed_bytes > 0 or hold.lost:
            try:
                await self._library.touch(upload)
            except DiskFull as error:
                # The lease ends sooner; what was stored is stored, and its caller is told so.
                log.warning("lease of %s not renewed: %s", upload.upload_id, error)
        else:
            await self._library.discard_upload(upload)

    def _check(self, header: Header) -> None:
        if header.media_type not in MEDIA_TYPES:
            raise InvalidRequest(
                f"media type {header.media_type!r}; known are {', '.join(sorted(MEDIA_TYPES))}",
                field="header.media_type",
            )
        if len(header.title.encode()) > self._limits.title_bytes:
            raise InvalidRequest(f"at most {self._limits.title_bytes} bytes", field="header.title")
        if header.declared_bytes is not None:
            if header.declared_bytes <= 0:
                raise InvalidRequest("must be positive", field="header.declared_bytes")
            check_length(header.declared_bytes, self._limits)

    async def _find(self, tenant: Tenant, header: Header) -> OpenUpload:
        if header.upload_id:
            return await self._library.find_upload(tenant, header.upload_id)
        return await self._library.open_upload(
            tenant,
            title=header.title,
            media_type=header.media_type,
            declared_bytes=header.declared_bytes,
        )

    async def _claim(self, upload_id: UploadId) -> Hold:
        while (holder := self._holds.get(upload_id)) is not None:
            holder.lose()
            try:
                await asyncio.wait_for(holder.released.wait(), TAKEOVER_WAIT_S)
            except TimeoutError as error:
                raise UploadBusy(f"another stream is sending upload {upload_id}") from error
        hold = self._holds[upload_id] = Hold()
        return hold

    async def _open(self, upload: OpenUpload) -> Session:
        if upload.document_id is None:
            return await ReceivingSession.open(
                upload, library=self._library, limits=self._limits, threads=self._threads
            )
        document = await self._library.document(upload.tenant, upload.document_id)
        return ReplayedSession(upload, document, library=self._library, threads=self._threads)
