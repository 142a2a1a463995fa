"""Which blobs were used since the index was last told."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from itertools import islice

from longspan.blobstore.folder import Folder
from longspan.blobstore.rows import Rows

_AT_ONCE = 1024  # other processes wait meanwhile


class Uses:
    """At most one note a blob; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notes: dict[bytes, tuple[int, int]] = {}

    def note(self, key: bytes, now_ns: int, *, hits: int) -> None:
        """A blob was used now, and found so many times."""
        with self._lock:
            earlier, used_ns = self._notes.get(key, (0, 0))
            self._notes[key] = (earlier + hits, max(used_ns, now_ns))

    def tell(self, rows: Rows, folder: Folder) -> None:
        """Note in the index what was used, at most ``_AT_ONCE`` blobs; within a transaction.

        A file's time follows, so that an index built again ranks as this one did. What was told is
        forgotten here; if the transaction fails after all, a few blobs look older than they are.

        Raises:
            sqlite3.Error: the index could not be told.
        """
        with self._lock:
            notes = {key: self._notes.pop(key) for key in list(islice(self._notes, _AT_ONCE))}
        rows.used((key, hits, used_ns) for key, (hits, used_ns) in notes.items())
        for key, (_, used_ns) in notes.items():
            with suppress(OSError):
                os.utime(folder.blob(key), ns=(used_ns, used_ns))

    def __bool__(self) -> bool:
        return bool(self._notes)
