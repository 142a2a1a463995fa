"""Takes blobs out of the store because they are not wanted, or not what they should be."""

from __future__ import annotations

import os
from pathlib import Path

from longspan.blobstore.folder import Folder
from longspan.blobstore.schema import READY
from longspan.blobstore.shared_index import SharedIndex

_AT_ONCE = 256  # other processes get a turn after as many


def remove_all(index: SharedIndex, folder: Folder, tenant: str | None, subject: str | None) -> int:
    """Remove blobs by owner, those being written too; returns how many could be read.

    Raises:
        OSError, sqlite3.Error: some may be left.
    """
    removed = 0
    while True:
        with index.transaction() as rows:
            rows.cancel(tenant, subject)
            keys = rows.some_keys(tenant, subject, _AT_ONCE)
            for key in keys:
                folder.blob(key).unlink(missing_ok=True)
                rows.remove(key)
        if not keys:
            return removed
        removed += len(keys)


def drop(index: SharedIndex, folder: Folder, key: bytes, inode: int | None) -> bool:
    """Forget a blob whose file is gone, or remove the damaged file with this inode.

    Returns whether there was anything to do: meanwhile another process may have evicted the blob,
    or stored it again.

    Raises:
        OSError, sqlite3.Error: nothing has changed.
    """
    path = folder.blob(key)
    with index.transaction() as rows:
        state = rows.state(key)
        if state is None or state[0] != READY:
            return False
        now = _inode(path)
        if now != inode:
            rows.changes[key] = True
            return False
        path.unlink(missing_ok=True)
        rows.remove(key)
        return True


def _inode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None
