"""What each tenant keeps, counted as it changes instead of when it is asked for.

The counts are a temporary table of the connection that owns the catalog, filled when it is opened.
Triggers keep it in step within the same transactions: a rollback undoes both.
"""

from __future__ import annotations

import sqlite3

from longspan.server.identity import Tenant
from longspan.server.store.quotas import Usage

_TABLE = """
PRAGMA temp_store = MEMORY;
CREATE TEMP TABLE totals (
    tenant TEXT PRIMARY KEY,
    documents INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO totals SELECT tenant, count(*), sum(size_bytes) FROM (
    SELECT tenant, size_bytes FROM documents UNION ALL
    SELECT tenant, reserved_bytes FROM uploads WHERE document_id IS NULL
) GROUP BY tenant;
"""

_TRIGGER = """
CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON {table} {when} BEGIN
    INSERT INTO totals VALUES ({row}.tenant, {sign}1, {sign}{row}.{size}) ON CONFLICT DO UPDATE SET
    documents = documents {sign} 1, size_bytes = size_bytes {sign} {row}.{size};
END;
"""

# An upload counts until it is a document; its tenant never changes.
_CHANGED = """
CREATE TEMP TRIGGER uploads_update AFTER UPDATE OF reserved_bytes, document_id ON uploads BEGIN
    UPDATE totals SET
    documents = documents + (new.document_id IS NULL) - (old.document_id IS NULL),
    size_bytes = size_bytes + iif(new.document_id IS NULL, new.reserved_bytes, 0)
    - iif(old.document_id IS NULL, old.reserved_bytes, 0)
    WHERE tenant = new.tenant;
END;
"""


def keep_totals(db: sqlite3.Connection) -> None:
    """Count what the tables hold, and every change from now on."""
    db.executescript(_TABLE)
    for event, row, sign in (("INSERT", "new", "+"), ("DELETE", "old", "-")):
        for table, size in (("documents", "size_bytes"), ("uploads", "reserved_bytes")):
            when = f"WHEN {row}.document_id IS NULL" if table == "uploads" else ""
            db.execute(
                _TRIGGER.format(table=table, event=event, when=when, row=row, sign=sign, size=size)
            )
    db.execute(_CHANGED)


def total(db: sqlite3.Connection, tenant: Tenant) -> Usage:
    """What a tenant keeps, its open uploads included."""
    row = db.execute(
        "SELECT documents, size_bytes FROM totals WHERE tenant = ?", (tenant,)
    ).fetchone()
    return Usage(0, 0) if row is None else Usage(*row)
