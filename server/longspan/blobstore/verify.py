"""Reads every file of a store and puts right what is wrong."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.blobstore.blob_file import check
from longspan.blobstore.folder import Folder
from longspan.blobstore.header import Damaged
from longspan.blobstore.removing import drop
from longspan.blobstore.shared_index import TROUBLE, SharedIndex


@dataclass(slots=True)
class Report:
    """What was found.

    Attributes:
        checked: files that are what they should be.
        bytes: their length.
        damaged: files that were not; they have been removed.
        missing: blobs without a file; they have been forgotten.
        unknown: files with a blob's name that the index does not have; they have been removed.
        unreadable: files that could not be read or removed now.
    """

    checked: int = 0
    bytes: int = 0
    damaged: int = 0
    missing: int = 0
    unknown: int = 0
    unreadable: int = 0


def verify(index: SharedIndex, folder: Folder, magic: bytes) -> Report:
    """Check all files; other threads and processes go on meanwhile."""
    report = Report()
    try:
        index.refresh()
        for key in list(index.known):
            _check(index, folder, magic, key, report)
        _remove_unknown(index, folder, report)
    except TROUBLE:
        report.unreadable += 1
    return report


def _check(index: SharedIndex, folder: Folder, magic: bytes, key: bytes, report: Report) -> None:
    try:
        header = check(folder.blob(key), magic, key)
    except FileNotFoundError:
        report.missing += drop(index, folder, key, None)
    except Damaged as damage:
        report.damaged += drop(index, folder, key, damage.inode)
    except OSError:
        report.unreadable += 1
    else:
        report.checked += 1
        report.bytes += header.file_bytes


def _remove_unknown(index: SharedIndex, folder: Folder, report: Report) -> None:
    for key in folder.blobs():
        if key in index.known:
            continue
        with index.transaction() as rows:
            # Known by now, or about to be: a name is given and noted in one transaction.
            if rows.state(key) is None:
                folder.blob(key).unlink(missing_ok=True)
                report.unknown += 1
