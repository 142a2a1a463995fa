"""Documents and open uploads, in SQLite.

Every method blocks for one short transaction; ``AsyncCatalog`` runs them on the one
thread that owns the connection.
"""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

from longspan.server.identity import DocumentId, Tenant, UploadId
from longspan.server.store.quotas import Usage
from longspan.server.store.records import OpenUpload, Place, StoredDocument
from longspan.server.store.totals import keep_totals, total

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    document_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    title TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    size_chars INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    passages INTEGER NOT NULL,
    created_s REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS newest ON documents (tenant, created_s DESC, document_id, size_bytes);
CREATE TABLE IF NOT EXISTS uploads (
    upload_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    title TEXT NOT NULL,
    media_type TEXT NOT NULL,
    declared_bytes INTEGER,
    touched_s REAL NOT NULL,
    document_id TEXT,
    reserved_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS stored ON uploads (document_id, touched_s);
CREATE TABLE IF NOT EXISTS readings (
    document_id TEXT NOT NULL,
    read_as TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    read_s REAL NOT NULL,
    PRIMARY KEY (document_id, read_as)
) STRICT, WITHOUT ROWID;
"""

_READINGS = 16
"""Ways to read a document that are remembered; the newest ones."""

_UPLOADS = 16
"""Uploads that are remembered of a stored document; the newest ones."""


class Catalog:
    """The tables, and the questions asked of them."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        self._add_what_is_new()
        keep_totals(self._db)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def put_stored(self, document: StoredDocument, upload: OpenUpload) -> StoredDocument:
        """Add a document and note it in its upload: both, or neither."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            kept = self.put_document(document)
            self.put_upload(upload)
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk may have ended the transaction already.
            self._db.rollback()
            raise
        return kept

    def put_document(self, document: StoredDocument) -> StoredDocument:
        """Add a document; the same bytes uploaded again keep their row and take a new title."""
        self._db.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (document_id) DO UPDATE SET "
            "title = excluded.title, media_type = excluded.media_type",
            _values(document),
        )
        found = self.document(document.tenant, document.document_id)
        assert found is not None
        return found

    def document(self, tenant: Tenant, document_id: DocumentId) -> StoredDocument | None:
        """One document of this tenant."""
        row = self._db.execute(
            "SELECT * FROM documents WHERE document_id = ? AND tenant = ?", (document_id, tenant)
        ).fetchone()
        return None if row is None else StoredDocument(*row)

    def documents(self, tenant: Tenant, *, limit: int, after: Place | None) -> list[StoredDocument]:
        """At most ``limit`` documents, newest first, those behind ``after``."""
        created_s, document_id = after or Place(math.inf, DocumentId(""))
        rows = self._db.execute(
            "SELECT * FROM documents WHERE tenant = :tenant AND (created_s < :created_s "
            "OR (created_s = :created_s AND document_id > :document_id)) "
            "ORDER BY created_s DESC, document_id LIMIT :limit",
            {
                "tenant": tenant,
                "created_s": created_s,
                "document_id": document_id,
                "limit": limit,
            },
        )
        return [StoredDocument(*row) for row in rows]

    def set_indexed(self, document_id: DocumentId, *, tokens: int, passages: int) -> bool:
        """Note what the index holds; False if there is no such document."""
        cursor = self._db.execute(
            "UPDATE documents SET tokens = ?, passages = ? WHERE document_id = ?",
            (tokens, passages, document_id),
        )
        return cursor.rowcount > 0

    def delete_document(self, tenant: Tenant, document_id: DocumentId) -> bool:
        """Remove a document and the uploads that led to it; False if there is none."""
        cursor = self._db.execute(
            "DELETE FROM documents WHERE document_id = ? AND tenant = ?", (document_id, tenant)
        )
        self._db.execute(
            "DELETE FROM uploads WHERE document_id = ? AND tenant = ?", (document_id, tenant)
        )
        if cursor.rowcount > 0:
            self._db.execute("DELETE FROM readings WHERE document_id = ?", (document_id,))
        return cursor.rowcount > 0

    def tokens_read(self, document_id: DocumentId, read_as: str) -> int:
        """Tokens that a decoder has read of a document, in this way; 0 where it never did."""
        row = self._db.execute(
            "SELECT tokens FROM readings WHERE document_id = ? AND read_as = ?",
            (document_id, read_as),
        ).fetchone()
        return 0 if row is None else int(row[0])

    def note_reading(
        self, document_id: DocumentId, read_as: str, tokens: int, own_tokens: int, now_s: float
    ) -> None:
        """A decoder has read a document; nothing if the document is gone.

        Args:
            document_id: which.
            read_as: in which way.
            tokens: that can be found again.
            own_tokens: of the document, which counts where no index has counted them.
            now_s: when.
        """
        self._db.execute(
            "UPDATE documents SET tokens = ? WHERE document_id = ? AND passages = 0",
            (own_tokens, document_id),
        )
        self._db.execute(
            "INSERT OR REPLACE INTO readings SELECT :document_id, :read_as, :tokens, :now_s "
            "WHERE EXISTS (SELECT 1 FROM documents WHERE document_id = :document_id)",
            {"document_id": document_id, "read_as": read_as, "tokens": tokens, "now_s": now_s},
        )
        self._db.execute(
            "DELETE FROM readings WHERE document_id = :document_id AND read_as NOT IN (SELECT "
            "read_as FROM readings WHERE document_id = :document_id ORDER BY read_s DESC "
            "LIMIT :kept)",
            {"document_id": document_id, "kept": _READINGS},
        )

    def put_upload(self, upload: OpenUpload) -> None:
        """Add or replace an upload."""
        self._db.execute(
            "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
            # No REPLACE: the row that it removes would not be counted.
            "ON CONFLICT (upload_id) DO UPDATE SET title = excluded.title, "
            "media_type = excluded.media_type, declared_bytes = excluded.declared_bytes, "
            "touched_s = excluded.touched_s, document_id = excluded.document_id, "
            "reserved_bytes = excluded.reserved_bytes",
            _values(upload),
        )

    def touch_upload(self, upload_id: UploadId, now_s: float) -> None:
        """Note that somebody was here; nothing if the upload is gone."""
        self._db.execute("UPDATE uploads SET touched_s = ? WHERE upload_id = ?", (now_s, upload_id))

    def reserve(self, upload_id: UploadId, size_bytes: int) -> None:
        """Note how many bytes an upload counts for; nothing if the upload is gone."""
        self._db.execute(
            "UPDATE uploads SET reserved_bytes = ? WHERE upload_id = ?", (size_bytes, upload_id)
        )

    def usage(self, tenant: Tenant) -> Usage:
        """What a tenant keeps, its open uploads included."""
        return total(self._db, tenant)

    def upload(self, tenant: Tenant, upload_id: UploadId) -> OpenUpload | None:
        """One upload of this tenant."""
        row = self._db.execute(
            "SELECT * FROM uploads WHERE upload_id = ? AND tenant = ?", (upload_id, tenant)
        ).fetchone()
        return None if row is None else OpenUpload(*row)

    def delete_upload(self, upload_id: UploadId) -> None:
        """Forget an upload."""
        self._db.execute("DELETE FROM uploads WHERE upload_id = ?", (upload_id,))

    def uploads(self, *, touched_before_s: float) -> list[OpenUpload]:
        """Uploads that nobody has touched since."""
        rows = self._db.execute("SELECT * FROM uploads WHERE touched_s < ?", (touched_before_s,))
        return [OpenUpload(*row) for row in rows]

    def expired(self, *, touched_before_s: float) -> list[OpenUpload]:
        """Of those, the ones that may be forgotten.

        As long as a document is stored, KV pages may lie under the names of its newest uploads:
        an index of pages that was built again from their files knows no other names.
        """
        rows = self._db.execute(
            "SELECT * FROM uploads WHERE touched_s < :before AND (document_id IS NULL OR upload_id "
            "NOT IN (SELECT one.upload_id FROM uploads AS one WHERE one.document_id = "
            "uploads.document_id ORDER BY one.touched_s DESC LIMIT :kept))",
            {"before": touched_before_s, "kept": _UPLOADS},
        )
        return [OpenUpload(*row) for row in rows]

    def uploads_of(self, document: StoredDocument) -> list[UploadId]:
        """The uploads that led to a document."""
        rows = self._db.execute(
            "SELECT upload_id FROM uploads WHERE document_id = ? AND tenant = ?",
            (document.document_id, document.tenant),
        )
        return [UploadId(upload_id) for (upload_id,) in rows]

    def has(self, tenant: Tenant, name: str) -> bool:
        """True where a name is that of a document or upload of this tenant."""
        row = self._db.execute(
            "SELECT EXISTS (SELECT 1 FROM documents WHERE document_id = :name AND tenant = :tenant)"
            " OR EXISTS (SELECT 1 FROM uploads WHERE upload_id = :name AND tenant = :tenant)",
            {"name": name, "tenant": tenant},
        ).fetchone()
        return bool(row[0])

    def totals(self) -> tuple[int, int]:
        """Documents of all tenants, and their bytes. Reads all rows."""
        row = self._db.execute(
            "SELECT count(*), coalesce(sum(size_bytes), 0) FROM documents"
        ).fetchone()
        return int(row[0]), int(row[1])

    def count_uploads(self) -> int:
        """Uploads that are not stored yet."""
        row = self._db.execute("SELECT count(*) FROM uploads WHERE document_id IS NULL").fetchone()
        return int(row[0])

    def _add_what_is_new(self) -> None:
        """Columns that a folder of an earlier version lacks."""
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(uploads)")}
        if "reserved_bytes" not in columns:
            self._db.execute(
                "ALTER TABLE uploads ADD COLUMN reserved_bytes INTEGER NOT NULL DEFAULT 0"
            )


def _values(record: StoredDocument | OpenUpload) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in record.__slots__)
