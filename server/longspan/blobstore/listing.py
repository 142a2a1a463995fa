"""What is in the store, blob by blob or summed up."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from longspan.blobstore.rows import whose
from longspan.blobstore.schema import READY

_PAGE = 1024


@dataclass(frozen=True, slots=True)
class Blob:
    """One blob that can be read; ``bytes`` is the length of its file."""

    key: bytes
    tenant: str
    subject: str
    label: str
    parent: bytes | None
    bytes: int
    cost_s: float
    depth: int
    used_s: float
    hits: int


@dataclass(frozen=True, slots=True)
class Subject:
    """The blobs of one subject of one tenant."""

    tenant: str
    subject: str
    entries: int
    bytes: int
    used_s: float
    hits: int


def blobs(
    connection: sqlite3.Connection, tenant: str | None, subject: str | None, *, after: int
) -> tuple[list[Blob], int | None]:
    """A page of blobs, and after which the next one begins, or None. Raises sqlite3.Error."""
    found = connection.execute(
        "SELECT id, key, tenant, subject, label, parent, bytes, cost_s, depth, used_s, hits"
        " FROM blobs WHERE id > ?1 AND state = ?2 AND (?3 IS NULL OR tenant = ?3)"
        " AND (?4 IS NULL OR subject = ?4) ORDER BY id LIMIT ?5",
        (after, READY, tenant, subject, _PAGE),
    ).fetchall()
    return [Blob(*values) for _, *values in found], found[-1][0] if found else None


def subjects(
    connection: sqlite3.Connection, tenant: str | None, named: Collection[str]
) -> list[Subject]:
    """Sums of some subjects, or all where none is named, in the order of their names.

    Raises:
        sqlite3.Error: the index cannot be read.
    """
    condition, values = whose(tenant, None)
    if named:
        condition += " AND subject IN (SELECT value FROM json_each(?))"
        values.append(json.dumps(list(named)))
    found = connection.execute(
        "SELECT tenant, subject, COUNT(*), SUM(bytes), MAX(used_s), SUM(hits) FROM blobs"
        f" WHERE {condition} AND state = {READY}"
        " GROUP BY tenant, subject ORDER BY tenant, subject",
        values,
    )
    return [Subject(*values) for values in found]
