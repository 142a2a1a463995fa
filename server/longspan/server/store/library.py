"""The documents and open uploads of all tenants: catalog and files kept in step."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from longspan.server.aio import in_thread
from longspan.server.errors import ConfigError, DocumentMissing, UploadMissing, disk_full
from longspan.server.identity import DocumentId, Tenant, UploadId, document_id, new_upload_id
from longspan.server.limits import Limits
from longspan.server.store.catalog import Catalog
from longspan.server.store.quotas import check_bytes, check_count, room_bytes
from longspan.server.store.records import OpenUpload, Place, StoredDocument
from longspan.server.store.vault import Vault

RESERVE_BYTES = 256 << 10
"""What an upload of unknown length reserves beyond what has come, so as not to ask every time."""

P = ParamSpec("P")
R = TypeVar("R")
Removed = Callable[[Tenant, Sequence[str]], None]
"""Is told a tenant, and the ids of documents and uploads that it has no more."""


class Library:
    """Asynchronous face of catalog and vault; one thread does all the work.

    Args:
        data_dir: where everything lies.
        limits: a tenant's quotas are among them.
    """

    def __init__(self, data_dir: Path, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self.vault = Vault(data_dir)
        try:
            self._catalog = Catalog(self.vault.catalog)
        except sqlite3.Error as error:
            self.vault.close()
            raise ConfigError(f"catalog {self.vault.catalog} cannot be used: {error}") from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="library")
        self._removed: Removed = _nobody
        self._totals: tuple[int, int] | None = None

    async def __aenter__(self) -> Self:
        await self._run(self._recover)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._run(self._catalog.close)
        self._thread.shutdown()
        self.vault.close()

    def watch(self, removed: Removed) -> None:
        """Tell somebody, on the event loop, which documents and uploads are gone."""
        self._removed = removed

    async def open_upload(
        self, tenant: Tenant, *, title: str, media_type: str, declared_bytes: int | None
    ) -> OpenUpload:
        """Register a new upload.

        Raises:
            QuotaExceeded: the tenant keeps too much already.
        """
        upload = OpenUpload(
            new_upload_id(), tenant, title, media_type, declared_bytes, time.time(), None
        )
        try:
            return await self._run(self._open_upload, upload)
        except asyncio.CancelledError:
            # The row is there, and its caller is gone before it was told the name.
            await self._run(self._discard_upload, upload.upload_id)
            raise

    async def reserve(self, upload: OpenUpload, reserved_bytes: int, size_bytes: int) -> int:
        """Let an upload grow beyond what it has reserved.

        Args:
            upload: it declared no length.
            reserved_bytes: so far.
            size_bytes: what it needs now.

        Returns:
            What is reserved now: more than that, where the quota has room.

        Raises:
            QuotaExceeded: the tenant keeps too much already.
        """
        return await self._run(self._reserve, upload, reserved_bytes, size_bytes)

    async def find_upload(self, tenant: Tenant, upload_id: UploadId) -> OpenUpload:
        """An upload to resume.

        Raises:
            UploadMissing: this tenant has none of this id.
        """
        upload = await self._run(self._catalog.upload, tenant, upload_id)
        if upload is None or self._is_over(upload):
            raise UploadMissing(f"no open upload {upload_id}: start a new one")
        return upload

    async def touch(self, upload: OpenUpload) -> None:
        """Renew an upload's lease."""
        await self._run(self._catalog.touch_upload, upload.upload_id, time.time())

    async def keep(
        self, upload: OpenUpload, *, size_bytes: int, size_chars: int, sha256: str
    ) -> StoredDocument:
        """Turn a verified upload into a document."""
        document = StoredDocument(
            document_id(upload.tenant, sha256),
            upload.tenant,
            upload.title,
            upload.media_type,
            size_bytes,
            size_chars,
            sha256,
            tokens=0,
            passages=0,
            created_s=time.time(),
        )
        return await self._run(self._keep, upload, document)

    async def discard_upload(self, upload: OpenUpload) -> None:
        """Forget an upload and remove its file."""
        await self._run(self._discard_upload, upload.upload_id)
        self._removed(upload.tenant, [upload.upload_id])

    async def document(self, tenant: Tenant, document_id: DocumentId) -> StoredDocument:
        """A stored document.

        Raises:
            DocumentMissing: this tenant has none of this id.
        """
        document = await self._run(self._catalog.document, tenant, document_id)
        if document is None:
            raise DocumentMissing(f"no document {document_id}")
        return document

    async def documents(
        self, tenant: Tenant, *, limit: int, after: Place | None
    ) -> list[StoredDocument]:
        """At most ``limit`` documents, newest first, those behind ``after``."""
        return await self._run(self._catalog.documents, tenant, limit=limit, after=after)

    async def set_indexed(self, document: StoredDocument) -> bool:
        """Note what a document's new index holds; False if the document was deleted.

        What was written beside a deleted document is removed.
        """
        return await self._run(self._set_indexed, document)

    async def tokens_read(self, document_id: DocumentId, read_as: str) -> int:
        """Tokens that a decoder has read of a document, in this way; 0 where it never did."""
        return await self._run(self._catalog.tokens_read, document_id, read_as)

    async def note_reading(
        self, document_id: DocumentId, read_as: str, tokens: int, own_tokens: int
    ) -> None:
        """A decoder has read a document, ``own_tokens`` long; nothing if the document is gone."""
        await self._run(
            self._catalog.note_reading, document_id, read_as, tokens, own_tokens, time.time()
        )

    async def delete(self, tenant: Tenant, document_id: DocumentId) -> None:
        """Remove a document and everything derived from it.

        Raises:
            DocumentMissing: this tenant has none of this id.
        """
        document = await self.document(tenant, document_id)
        uploads = await self._run(self._delete, document)
        self._removed(tenant, [document_id, *uploads])

    async def expire_uploads(
        self, lease_s: float, *, spared: Collection[UploadId] = frozenset()
    ) -> int:
        """Remove uploads that nobody has touched for ``lease_s``; return how many.

        The newest ones of a stored document are remembered as long as it is; see ``Catalog``.
        """
        expired = await self._run(self._expire, time.time() - lease_s, spared)
        for upload in expired:
            self._removed(upload.tenant, [upload.upload_id])
        return len(expired)

    async def unknown(self, names: Collection[tuple[Tenant, str]]) -> list[tuple[Tenant, str]]:
        """Those of the names that no document and no upload of their tenants has."""
        return await self._run(lambda: [one for one in names if not self._catalog.has(*one)])

    async def totals(self) -> tuple[int, int]:
        """Documents of all tenants, and their bytes; counted again when some came or went."""
        totals = self._totals
        return await self._run(self._count) if totals is None else totals

    async def count_uploads(self) -> int:
        """Uploads that are open and not stored yet."""
        return await self._run(self._catalog.count_uploads)

    async def _run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await in_thread(self._thread, lambda: call(*args, **kwargs))
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise disk_full() from error
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full() from error
            raise

    def _count(self) -> tuple[int, int]:
        # Noted on the thread that changes them: elsewhere it could be after the next change.
        totals = self._totals = self._catalog.totals()
        return totals

    def _open_upload(self, upload: OpenUpload) -> OpenUpload:
        usage = self._catalog.usage(upload.tenant)
        check_count(usage, self._limits)
        # Of unknown length: the first chunks need not wait for the catalog.
        reserved = upload.declared_bytes
        if reserved is None:
            reserved = min(RESERVE_BYTES, room_bytes(usage, self._limits))
        check_bytes(usage, reserved, self._limits)
        upload = replace(upload, reserved_bytes=reserved)
        self._catalog.put_upload(upload)
        return upload

    def _reserve(self, upload: OpenUpload, reserved_bytes: int, size_bytes: int) -> int:
        usage = self._catalog.usage(upload.tenant)
        check_bytes(usage, size_bytes - reserved_bytes, self._limits)
        more = min(size_bytes + RESERVE_BYTES, reserved_bytes + room_bytes(usage, self._limits))
        reserved = max(size_bytes, more)
        self._catalog.reserve(upload.upload_id, reserved)
        return reserved

    def _keep(self, upload: OpenUpload, document: StoredDocument) -> StoredDocument:
        # Rows first: a crash before the rename leaves what ``_recover`` needs to finish it.
        stored = replace(upload, touched_s=time.time(), document_id=document.document_id)
        self._totals = None
        kept = self._catalog.put_stored(document, stored)
        self.vault.keep(upload.upload_id, document)
        return kept

    def _discard_upload(self, upload_id: UploadId) -> None:
        self._catalog.delete_upload(upload_id)
        self.vault.discard_spool(upload_id)

    def _set_indexed(self, document: StoredDocument) -> bool:
        stored = self._catalog.set_indexed(
            document.document_id, tokens=document.tokens, passages=document.passages
        )
        if not stored:
            self.vault.discard(document)
        return stored

    def _delete(self, document: StoredDocument) -> list[UploadId]:
        """Returns the uploads that led to it, which are gone too."""
        # Files first: a crash leaves a row that can be deleted again, not bytes that nobody
        # knows of; and on a full disk the files make room for the row's change.
        self._totals = None
        self.vault.discard(document)
        uploads = self._catalog.uploads_of(document)
        self._catalog.delete_document(document.tenant, document.document_id)
        return uploads

    def _expire(self, touched_before_s: float, spared: Collection[UploadId]) -> list[OpenUpload]:
        old = self._catalog.expired(touched_before_s=touched_before_s)
        expired = [upload for upload in old if upload.upload_id not in spared]
        for upload in expired:
            self._discard_upload(upload.upload_id)
        return expired

    def _is_over(self, upload: OpenUpload) -> bool:
        """Stored, and remembered for its name alone."""
        lease_s = self._limits.upload_lease_s
        return upload.document_id is not None and upload.touched_s < time.time() - lease_s

    def _recover(self) -> None:
        known = {
            upload.upload_id: upload for upload in self._catalog.uploads(touched_before_s=1e18)
        }
        for upload_id in self.vault.spools():
            upload = known.get(upload_id)
            if upload is None:
                self.vault.discard_spool(upload_id)
            elif upload.document_id is not None:
                self._finish_keeping(upload, upload.document_id)

    def _finish_keeping(self, upload: OpenUpload, document_id: DocumentId) -> None:
        document = self._catalog.document(upload.tenant, document_id)
        if document is None:
            self.vault.discard_spool(upload.upload_id)
        else:
            self.vault.keep(upload.upload_id, document)


def _nobody(tenant: Tenant, names: Sequence[str]) -> None:
    return
