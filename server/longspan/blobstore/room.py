"""Room on the disk: what must go so that a new blob fits, and what the dead left."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from longspan.blobstore.folder import Folder
from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.rows import Row, Rows
from longspan.blobstore.schema import PENDING
from longspan.blobstore.stats import Put
from longspan.blobstore.writer import lives


def find_victims(
    rows: Rows, limits: StoreLimits, *, size_bytes: int, tenant: str, free_bytes: int
) -> list[Row] | Put:
    """The blobs that make room for one more, or why there can be none.

    A tenant above its share gives up its own blobs; after that the lowest rank of all goes.
    """
    if size_bytes > limits.budget_bytes:
        return Put.REFUSED_SPACE
    chosen: dict[int, Row] = {}
    if limits.tenant_share < 1:
        excess = rows.tenant_bytes(tenant) + size_bytes - limits.tenant_bytes
        if not _choose(chosen, rows.by_rank(tenant), excess):
            return Put.REFUSED_QUOTA
    if not _choose(chosen, rows.by_rank(), _lacking(rows, limits, size_bytes, free_bytes)):
        return Put.REFUSED_SPACE
    return list(chosen.values())


def find_surplus(rows: Rows, limits: StoreLimits, *, free_bytes: int) -> list[Row]:
    """The blobs that are too many, for instance after the budget has been made smaller."""
    chosen: dict[int, Row] = {}
    _choose(chosen, rows.by_rank(), _lacking(rows, limits, 0, free_bytes))
    return list(chosen.values())


def evict(rows: Rows, folder: Folder, victims: Iterable[Row]) -> None:
    """Remove blobs to make room.

    The files go before the transaction ends: whoever reserves next finds the room really there.
    If it is rolled back after all, the rows of missing files go when they are read or verified.

    Raises:
        OSError: a file could not be removed.
    """
    rank = None
    for victim in victims:
        folder.blob(victim.key).unlink(missing_ok=True)
        rows.remove(victim.key)
        rank = victim.rank
    if rank is not None:
        rows.evicted(rank)


def reclaim(rows: Rows, folder: Folder) -> None:
    """Forget what dead writers were writing. Raises OSError."""
    for ticket, key in rows.tickets():
        if not lives(folder.writers, ticket):
            give_up(rows, folder, ticket, key)


def give_up(rows: Rows, folder: Folder, ticket: str, key: bytes) -> None:
    """Undo a write, wherever it ended. Raises OSError."""
    folder.temporary(ticket).unlink(missing_ok=True)
    if rows.state(key) == (PENDING, ticket):
        # It had its name already, but the transaction did not end.
        folder.blob(key).unlink(missing_ok=True)
    rows.drop_ticket(ticket)


def free_bytes(path: Path) -> int:
    """What this user may still write on the file system. Raises OSError."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _lacking(rows: Rows, limits: StoreLimits, size_bytes: int, free: int) -> int:
    _, used = rows.totals()
    # Others' reservations may not have reached the disk: their room is not free either.
    promised = rows.unwritten_bytes() + size_bytes
    return max(used + size_bytes - limits.budget_bytes, limits.floor_bytes + promised - free)


def _choose(chosen: dict[int, Row], candidates: Iterable[Row], lacking: int) -> bool:
    """Add candidates until those chosen have as many bytes as are lacking."""
    freed = sum(row.bytes for row in chosen.values())
    if freed >= lacking:
        return True
    for row in candidates:
        if row.id not in chosen:
            chosen[row.id] = row
            freed += row.bytes
            if freed >= lacking:
                return True
    return False
