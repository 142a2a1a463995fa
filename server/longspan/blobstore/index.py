"""The index: one SQLite file that all processes which share a folder agree on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from longspan.blobstore import schema

# Another process's transaction may remove some files; a rebuild takes longer than this.
_PATIENCE_S = 5.0
# No page of SQLite has a checksum: what it can check of itself leaves a changed number unseen.
_SUMS_AGREE = (
    "SELECT (SELECT totals.entries = COUNT(*) AND totals.bytes = COALESCE(SUM(blobs.bytes), 0)"
    " FROM blobs) FROM totals"
)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Foreign(OSError):
    """The folder now belongs to a store of another kind or layout."""


class Index:
    """A connection; used by one thread at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path, magic: bytes) -> Index:
        """A new, empty index. Raises sqlite3.Error."""
        index = cls(path, _connect(path))
        with index._closed_on_error():
            index._connection.executescript(f"BEGIN;{schema.TABLES}COMMIT;")
            index._connection.execute("INSERT INTO meta VALUES ('magic', ?)", (magic,))
        return index

    @classmethod
    def open(cls, path: Path, magic: bytes) -> Index:
        """An index that was made before.

        Raises:
            Foreign: it was made for files of another kind.
            sqlite3.Error: it is damaged or incomplete (see ``damaged``) or cannot be read now.
        """
        with _decoding():
            index = cls(path, _connect(path))
            with index._closed_on_error():
                index._examine(magic)
        return index

    @property
    def gone(self) -> bool:
        """Another process has put a new index in the place of this one."""
        return not self.path.exists()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything in it happens, or nothing; other processes wait meanwhile.

        Raises:
            sqlite3.Error: it could not begin or not be completed.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            with _decoding():
                yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            # A full disk has ended the transaction already.
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view; keeps nobody waiting. Raises sqlite3.Error."""
        self._connection.execute("BEGIN")
        try:
            with _decoding():
                yield self._connection
        finally:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the files."""
        with suppress(sqlite3.Error):
            self._connection.close()

    def _examine(self, magic: bytes) -> None:
        [version] = self._connection.execute("PRAGMA user_version").fetchone()
        [verdict] = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if version != schema.VERSION or verdict != "ok":
            raise _damage(f"index of version {version}: {verdict}")
        found = self._connection.execute("SELECT value FROM meta WHERE name = 'magic'").fetchone()
        if found is None:
            raise _damage("index without a magic")
        if self._connection.execute(_SUMS_AGREE).fetchone() != (1,):
            raise _damage("index with wrong sums")
        if found[0] != magic:
            raise Foreign(f"{self.path} is the index of {found[0]!r}, not of {magic!r}")

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise


def damaged(error: BaseException) -> bool:
    """Whether the index must be built again; a full disk or a lock is no damage."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE


def discard(path: Path) -> None:
    """Remove an index; processes that have it open notice. Raises OSError."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
    )
    try:
        # After a power failure the index may be behind the files, or damaged. Opening the folder
        # compares them, so nothing need wait for the disk.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA temp_store = MEMORY")
        # The log beside the index takes disk too: 1 MB, not 4.
        connection.execute("PRAGMA wal_autocheckpoint = 250")
    except BaseException:
        connection.close()
        raise
    path.chmod(0o600)
    return connection


@contextmanager
def _decoding() -> Iterator[None]:
    """A text, or a message about a table's name, that is no UTF-8 comes from a damaged file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise _damage(str(error)) from error


def _damage(message: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
