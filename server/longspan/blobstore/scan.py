"""Makes the index agree with the files: for an empty index this builds it."""

from __future__ import annotations

from longspan.blobstore.blob_file import describe
from longspan.blobstore.folder import Folder
from longspan.blobstore.header import Damaged
from longspan.blobstore.room import reclaim
from longspan.blobstore.rows import Rows
from longspan.blobstore.writer import lives


def reconcile(rows: Rows, folder: Folder, magic: bytes) -> None:
    """Adopt files that the index does not know, forget blobs without a file, clear up.

    Within one transaction nobody else gives a file its name or takes it away. Only headers are
    read; a file with a blob's name and no good header is removed.

    Raises:
        OSError: a folder could not be listed, or a file not removed.
    """
    reclaim(rows, folder)
    for ticket in folder.tickets():
        if not lives(folder.writers, ticket):
            folder.temporary(ticket).unlink(missing_ok=True)
    known, found = rows.keys(), set()
    for key in folder.blobs():
        found.add(key)
        if key not in known and rows.state(key) is None:
            _adopt(rows, folder, magic, key)
    for key in known - found:
        rows.remove(key)


def _adopt(rows: Rows, folder: Folder, magic: bytes, key: bytes) -> None:
    path = folder.blob(key)
    try:
        header, used_ns = describe(path, magic, key)
    except Damaged:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # unreadable now, or no file at all; it may be readable at the next start
    else:
        rows.adopt(header, used_ns)
