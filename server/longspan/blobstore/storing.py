"""Stores one blob: reserves its room, writes it beside, gives it its name."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from longspan.blobstore import blob_file
from longspan.blobstore.folder import Folder
from longspan.blobstore.header import Header
from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.room import evict, find_surplus, find_victims, free_bytes, reclaim
from longspan.blobstore.rows import Row, Rows
from longspan.blobstore.schema import CANCELLED, PENDING, READY
from longspan.blobstore.shared_index import TROUBLE, SharedIndex
from longspan.blobstore.stats import Counters, Put
from longspan.blobstore.uses import Uses
from longspan.blobstore.writer import lives


class Storing:
    """The way of a blob into the store; several threads may go it at once."""

    def __init__(
        self,
        index: SharedIndex,
        folder: Folder,
        limits: StoreLimits,
        magic: bytes,
        counters: Counters,
        uses: Uses,
    ) -> None:
        self._index = index
        self._folder = folder
        self._limits = limits
        self._magic = magic
        self._counters = counters
        self._uses = uses

    def put(self, header: Header, parts: list[memoryview]) -> Put:
        """Store a blob; trouble with the disk is ``FAILED``."""
        try:
            with self._index.transaction() as rows:
                victims = self._admit(rows, header)
                if isinstance(victims, Put):
                    return victims
                evict(rows, self._folder, victims)
                header = _placed(rows, header)
                ticket = self._index.ticket()
                rows.reserve(header, ticket)
        except TROUBLE:
            self._counters.io_error()
            return Put.FAILED
        self._counters.evicted(len(victims))
        return self._write(ticket, header, parts)

    def shrink(self) -> None:
        """Evict what is too much, when the limits have become tighter."""
        try:
            with self._index.transaction() as rows:
                free = free_bytes(self._folder.root)
                victims = find_surplus(rows, self._limits, free_bytes=free)
                evict(rows, self._folder, victims)
        except TROUBLE:
            self._counters.io_error()
        else:
            self._counters.evicted(len(victims))

    def _admit(self, rows: Rows, header: Header) -> list[Row] | Put:
        """Whom to evict for a blob, or why it is not written."""
        state = rows.state(header.key)
        if state is not None and state[0] == READY:
            rows.changes[header.key] = True  # another process's, perhaps not known here yet
            self._uses.note(header.key, header.created_ns, hits=0)
            return Put.ALREADY
        if state is not None and lives(self._folder.writers, state[1] or ""):
            return Put.ALREADY
        if state is None:
            victims = self._victims(rows, header)
            if victims == []:
                return victims
        # The dead hold no room, and those used just now do not go first.
        reclaim(rows, self._folder)
        self._uses.tell(rows, self._folder)
        return self._victims(rows, header)

    def _victims(self, rows: Rows, header: Header) -> list[Row] | Put:
        return find_victims(
            rows,
            self._limits,
            size_bytes=self._limits.taken(header.file_bytes),
            tenant=header.tenant,
            free_bytes=free_bytes(self._folder.root),
        )

    def _write(self, ticket: str, header: Header, parts: list[memoryview]) -> Put:
        path = self._folder.temporary(ticket)
        try:
            blob_file.write(path, self._magic, header, parts)
            with self._index.transaction() as rows:
                return self._settle(rows, ticket, header.key, path)
        except TROUBLE:
            self._counters.io_error()
            self._abandon(ticket, header.key, path)
            return Put.FAILED
        except BaseException:
            self._abandon(ticket, header.key, path)
            raise

    def _abandon(self, ticket: str, key: bytes, path: Path) -> None:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # at once: others may need the room
        self._index.abandon(ticket, key)

    def _settle(self, rows: Rows, ticket: str, key: bytes, path: Path) -> Put:
        """Within a transaction, so that no other file can have or get this name meanwhile."""
        state = rows.ticket_state(ticket)
        if state == PENDING:
            self._folder.settle(ticket, key)
            rows.settle(ticket, key)
            return Put.STORED
        path.unlink(missing_ok=True)
        rows.drop_ticket(ticket)
        # Cancelled: it was stored, and removed at once. Unknown: the index was built again.
        return Put.STORED if state == CANCELLED else Put.FAILED


def _placed(rows: Rows, header: Header) -> Header:
    """The header with its place in its chain; a parent that is gone counts as a first one."""
    if header.parent is None:
        return header
    return replace(header, depth=1 + (rows.depth(header.parent) or 0))
