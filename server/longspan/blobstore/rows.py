"""What can be asked of the index and changed in it, within one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from longspan.blobstore.eviction import Entry, EvictionPolicy
from longspan.blobstore.header import Header
from longspan.blobstore.schema import CANCELLED, PENDING, READY

# A process that missed more changes than this reads the whole index again.
_CHANGES_KEPT = 16_384
_TRIM_EVERY = 1024
_BATCH = 64
# Not a parameter: a query that names the state can use the indexes of this state alone.
_READY = f"state = {READY}"


@dataclass(frozen=True, slots=True)
class Row:
    """A blob that the index has: its place in the file, its key, length, and rank."""

    id: int
    key: bytes
    bytes: int
    rank: float


class Rows:
    """The statements; each raises sqlite3.Error. ``changes`` is what became of which key."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        policy: EvictionPolicy,
        taken: Callable[[int], int],
    ) -> None:
        self._connection = connection
        self._policy = policy
        self._taken = taken
        self.changes: dict[bytes, bool] = {}

    # Questions.

    def state(self, key: bytes) -> tuple[int, str | None] | None:
        """State and ticket of a blob."""
        found = self._one("SELECT state, ticket FROM blobs WHERE key = ?", key)
        return None if found is None else (found[0], found[1])

    def ticket_state(self, ticket: str) -> int | None:
        """State of the blob that is written under a ticket."""
        return self._number("SELECT state FROM blobs WHERE ticket = ?", ticket)

    def totals(self) -> tuple[int, int]:
        """Number and bytes of all blobs, those being written included."""
        found = self._one("SELECT entries, bytes FROM totals")
        return (0, 0) if found is None else (found[0], found[1])

    def tenant_bytes(self, tenant: str) -> int:
        """Bytes of a tenant's blobs, those being written included."""
        return self._number("SELECT bytes FROM tenants WHERE tenant = ?", tenant) or 0

    def unwritten_bytes(self) -> int:
        """Bytes of blobs that may not be on the disk yet."""
        return self._number("SELECT SUM(bytes) FROM blobs WHERE ticket IS NOT NULL") or 0

    def depth(self, key: bytes) -> int | None:
        """Blobs before a blob in its chain."""
        return self._number("SELECT depth FROM blobs WHERE key = ?", key)

    def tickets(self) -> list[tuple[str, bytes]]:
        """Tickets and keys of blobs being written."""
        return self._connection.execute(
            "SELECT ticket, key FROM blobs WHERE ticket IS NOT NULL"
        ).fetchall()

    def keys(self) -> set[bytes]:
        """Keys of all blobs that can be read."""
        found = self._connection.execute(f"SELECT key FROM blobs WHERE {_READY}")
        return {key for (key,) in found}

    def by_rank(self, tenant: str | None = None) -> Iterator[Row]:
        """Blobs that can be read, lowest rank first; the index must not change meanwhile."""
        condition, values = whose(tenant, None)
        cursor = self._connection.execute(
            f"SELECT id, key, bytes, rank FROM blobs WHERE {_READY} AND {condition} ORDER BY rank",
            values,
        )
        while batch := cursor.fetchmany(_BATCH):
            yield from (Row(*row) for row in batch)

    # Changes.

    def reserve(self, header: Header, ticket: str) -> None:
        """Note a blob that will be written."""
        self._insert(header, PENDING, ticket, header.created_ns)

    def settle(self, ticket: str, key: bytes) -> None:
        """A blob has been written and can be read."""
        self._connection.execute(
            "UPDATE blobs SET state = ?, ticket = NULL WHERE ticket = ?", (READY, ticket)
        )
        self._log(key, added=True)

    def adopt(self, header: Header, used_ns: int) -> None:
        """A blob has been found on the disk."""
        self._insert(header, READY, None, used_ns)
        self._log(header.key, added=True)

    def drop_ticket(self, ticket: str) -> None:
        """A blob will not be written."""
        self._connection.execute("DELETE FROM blobs WHERE ticket = ?", (ticket,))

    def cancel(self, tenant: str | None, subject: str | None) -> None:
        """Blobs being written are not wanted any more.

        They free their keys at once, their bytes when their writers come back.
        """
        condition, values = whose(tenant, subject)
        self._connection.execute(
            f"UPDATE blobs SET state = ?, key = randomblob(32) WHERE state = ? AND {condition}",
            (CANCELLED, PENDING, *values),
        )

    def rename(self, tenant: str, old: str, new: str) -> None:
        """A subject has another name."""
        self._connection.execute(
            "UPDATE blobs SET subject = ? WHERE tenant = ? AND subject = ?", (new, tenant, old)
        )

    def some_keys(self, tenant: str | None, subject: str | None, limit: int) -> list[bytes]:
        """A few of the keys, of a tenant or subject, that can be read."""
        condition, values = whose(tenant, subject)
        found = self._connection.execute(
            f"SELECT key FROM blobs WHERE {_READY} AND {condition} LIMIT ?", (*values, limit)
        )
        return [key for (key,) in found]

    def remove(self, key: bytes) -> None:
        """A readable blob's file has been removed."""
        self._connection.execute("DELETE FROM blobs WHERE key = ?", (key,))
        self._log(key, added=False)

    def evicted(self, rank: float) -> None:
        """A blob of this rank made room."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('floor', ?)", (rank,))

    def used(self, uses: Iterable[tuple[bytes, int, int]]) -> None:
        """Blobs were used: key, how often, when last (ns)."""
        floor = self._floor()
        for key, hits, used_ns in uses:
            found = self._one("SELECT bytes, cost_s, depth, hits FROM blobs WHERE key = ?", key)
            if found is None:
                continue
            size, cost_s, depth, earlier = found
            used_s = used_ns / 1e9
            rank = self._policy.rank(
                Entry(size, cost_s, depth), used_s=used_s, hits=earlier + hits, floor=floor
            )
            self._connection.execute(
                "UPDATE blobs SET used_s = ?, hits = ?, rank = ? WHERE key = ?",
                (used_s, earlier + hits, rank, key),
            )

    # What other processes changed.

    def last_change(self) -> int:
        """Number of the newest change."""
        return self._number("SELECT MAX(seq) FROM changes") or 0

    def changes_since(self, seq: int) -> dict[bytes, bool] | None:
        """What became of which key after that change; None if that is not remembered."""
        if (self._number("SELECT MIN(seq) FROM changes") or 0) > seq + 1:
            return None
        query = "SELECT key, added FROM changes WHERE seq > ? ORDER BY seq"
        return {key: bool(added) for key, added in self._connection.execute(query, (seq,))}

    def _insert(self, header: Header, state: int, ticket: str | None, used_ns: int) -> None:
        size_bytes = self._taken(header.file_bytes)
        entry = Entry(size_bytes, header.cost_s, header.depth)
        used_s = used_ns / 1e9
        rank = self._policy.rank(entry, used_s=used_s, hits=0, floor=self._floor())
        self._connection.execute(
            "INSERT INTO blobs (key, state, bytes, tenant, subject, label, parent, cost_s, depth,"
            " used_s, hits, rank, ticket) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
            (
                header.key,
                state,
                size_bytes,
                header.tenant,
                header.subject,
                header.label,
                header.parent,
                header.cost_s,
                header.depth,
                used_s,
                rank,
                ticket,
            ),
        )

    def _floor(self) -> float:
        found = self._one("SELECT value FROM meta WHERE name = 'floor'")
        return 0.0 if found is None else float(found[0])

    def _log(self, key: bytes, *, added: bool) -> None:
        cursor = self._connection.execute(
            "INSERT INTO changes (key, added) VALUES (?, ?)", (key, added)
        )
        seq = cursor.lastrowid or 0
        if seq % _TRIM_EVERY == 0:
            self._connection.execute("DELETE FROM changes WHERE seq <= ?", (seq - _CHANGES_KEPT,))
        self.changes[key] = added

    def _number(self, query: str, *values: object) -> int | None:
        found: tuple[int | None] | None = self._connection.execute(query, values).fetchone()
        return None if found is None else found[0]

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
        return found


def whose(tenant: str | None, subject: str | None) -> tuple[str, list[object]]:
    """A condition that the index on tenants and subjects serves, and its values; None is all."""
    if tenant is None:
        return "1", []
    if subject is None:
        return "tenant = ?", [tenant]
    return "tenant = ? AND subject = ?", [tenant, subject]
