"""The index as one process sees it: opened, rebuilt and reopened as needed, mirrored in memory."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from longspan.blobstore.eviction import EvictionPolicy
from longspan.blobstore.folder import Folder
from longspan.blobstore.index import Foreign, Index, damaged, discard
from longspan.blobstore.room import give_up
from longspan.blobstore.rows import Rows
from longspan.blobstore.scan import reconcile
from longspan.blobstore.writer import Writer, forget_dead

TROUBLE = (OSError, sqlite3.Error)


class SharedIndex:
    """Transactions over the index, for any thread.

    Attributes:
        known: keys that can be read, as last seen; looked up without a lock.
        entries, bytes: number of all blobs and what their files take, as last seen.
        degraded: the last use of the index failed.
    """

    def __init__(
        self, folder: Folder, magic: bytes, policy: EvictionPolicy, taken: Callable[[int], int]
    ) -> None:
        """Opens the index, or builds it again; what fails is tried again by ``refresh``."""
        self.known: set[bytes] = set()
        self.entries = self.bytes = 0
        self.degraded = False
        self._folder = folder
        self._magic = magic
        self._policy = policy
        self._taken = taken
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._writer: Writer | None = None
        self._seen = 0
        self._abandoned: dict[str, bytes] = {}
        self._over = False
        self._failed = False
        with self._lock, suppress(*TROUBLE):
            self._open(take_over=True)

    @contextmanager
    def transaction(self) -> Iterator[Rows]:
        """Change the index; what changed is known here at once, elsewhere after a refresh.

        Raises:
            OSError, sqlite3.Error: nothing has changed.
        """
        with self._lock, self._noticing():
            with self._usable().transaction() as connection:
                rows = self._rows(connection)
                for ticket, key in self._abandoned.items():
                    give_up(rows, self._folder, ticket, key)
                yield rows
                totals = rows.totals()
            self._abandoned.clear()
            self._apply(rows.changes)
            self.entries, self.bytes = totals

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Look at the index. Raises OSError, sqlite3.Error."""
        with self._lock, self._noticing(), self._usable().reading() as connection:
            yield connection

    def refresh(self) -> None:
        """Learn what other processes changed, and open what could not be opened before.

        Raises:
            OSError, sqlite3.Error: what was known stays known.
        """
        with self._lock, self._noticing():
            self._failed = False
            with self._usable().reading() as connection:
                self._learn(self._rows(connection))

    def ticket(self) -> str:
        """A name for a write; within a transaction. Raises OSError."""
        if self._writer is None:
            raise OSError(errno.ESTALE, "the store is not open")
        return self._writer.ticket()

    def abandon(self, ticket: str, key: bytes) -> None:
        """A write has failed; the next transaction takes back its reservation."""
        with self._lock:
            self._abandoned[ticket] = key

    def close(self) -> None:
        """Let go of the folder; nothing is known any more."""
        with self._lock:
            self._over = True
            self.known = set()
            if self._index is not None:
                self._index.close()
            if self._writer is not None:
                self._writer.close()
            self._index = self._writer = None

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        try:
            yield
        except TROUBLE as error:
            self.degraded = True
            if damaged(error) and self._index is not None:
                with suppress(OSError):
                    discard(self._index.path)
            raise
        self.degraded = False

    def _rows(self, connection: sqlite3.Connection) -> Rows:
        return Rows(connection, self._policy, self._taken)

    def _usable(self) -> Index:
        if self._over:
            raise OSError(errno.ESTALE, "the store is closed, or another kind has its folder")
        if self._failed:
            # Opening looks at every file: not with each put on a disk that is full.
            raise OSError(errno.ESTALE, "the index could not be opened")
        if self._index is None or self._index.gone:
            self._open(take_over=False)
        assert self._index is not None
        return self._index

    def _open(self, *, take_over: bool) -> None:
        """Blobs may change hands only by a start: two running kinds would delete each other's."""
        if self._index is not None:
            self._index.close()
            self._index = None
        try:
            self._folder.prepare()
            with _locked(self._folder.lock):
                if self._writer is None or not self._writer.present:
                    self._become_writer()
                index = self._found(take_over=take_over)
                try:
                    self._reconcile(index)
                except BaseException:
                    index.close()
                    raise
        except Foreign:
            self._over, self.known = True, set()
            raise
        except TROUBLE:
            self.degraded = self._failed = True
            raise
        self._index = index

    def _become_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
        forget_dead(self._folder.writers)
        self._writer = Writer(self._folder.writers)

    def _found(self, *, take_over: bool) -> Index:
        paths = self._folder.indexes()
        if len(paths) == 1:
            try:
                return Index.open(paths[0], self._magic)
            except Foreign:
                if not take_over:
                    raise
            except sqlite3.Error as error:
                if not damaged(error):
                    raise
        for path in paths:
            discard(path)
        return Index.create(self._folder.new_index(), self._magic)

    def _reconcile(self, index: Index) -> None:
        with index.transaction() as connection:
            reconcile(self._rows(connection), self._folder, self._magic)
        with index.reading() as connection:
            self._seen = -1
            self._learn(self._rows(connection))

    def _learn(self, rows: Rows) -> None:
        last = rows.last_change()
        if last != self._seen:
            changes = rows.changes_since(self._seen) if self._seen >= 0 else None
            if changes is None:
                self.known = rows.keys()
            else:
                self._apply(changes)
        self._seen = last
        self.entries, self.bytes = rows.totals()

    def _apply(self, changes: dict[bytes, bool]) -> None:
        for key, added in changes.items():
            if added:
                self.known.add(key)
            else:
                self.known.discard(key)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the kernel opens the lock of a dead one."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
