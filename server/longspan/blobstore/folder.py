"""Names of the files of a store.

    lock                       held while a process opens the folder
    index-<random>.sqlite3     the index; a new one has a new name, so that a process which still
                               has the old one open cannot touch the files beside the new one
    writers/<writer>           held while that writer lives
    tmp/<writer>-<number>      a blob being written
    ab/<key in hex>.blob       a blob, in a folder named after its first byte

Whatever else lies in the folder is not ours: it is left alone, and counted by nobody.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

_BLOB = re.compile(r"([0-9a-f]{2})[0-9a-f]{62}\.blob")
_INDEX = re.compile(r"index-[0-9a-f]{16}\.sqlite3")


class Folder:
    """Makes paths and lists what is there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "lock"
        self.writers = root / "writers"
        self._temporary = root / "tmp"

    def prepare(self) -> None:
        """Make what is missing, for this user alone. Raises OSError."""
        for folder in (self.root, self.writers, self._temporary):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def blob(self, key: bytes) -> Path:
        """Where a blob lies."""
        name = key.hex()
        return self.root / name[:2] / f"{name}.blob"

    def temporary(self, ticket: str) -> Path:
        """Where a blob is written; the ticket is ``<writer>-<number>``."""
        return self._temporary / ticket

    def new_index(self) -> Path:
        """A name that no index ever had here."""
        return self.root / f"index-{os.urandom(8).hex()}.sqlite3"

    def indexes(self) -> list[Path]:
        """The indexes that are here; more than one is a mistake."""
        return [path for path in self.root.iterdir() if _INDEX.fullmatch(path.name)]

    def tickets(self) -> list[str]:
        """Blobs being written."""
        return [path.name for path in self._temporary.iterdir()]

    def blobs(self) -> Iterator[bytes]:
        """Keys of all files that have a blob's name."""
        for number in range(256):
            prefix = f"{number:02x}"
            try:
                names = os.listdir(self.root / prefix)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for name in names:
                match = _BLOB.fullmatch(name)
                if match and match[1] == prefix:
                    yield bytes.fromhex(name[:64])

    def settle(self, ticket: str, key: bytes) -> None:
        """Give a written blob its name. Raises OSError."""
        path = self.blob(key)
        try:
            self.temporary(ticket).rename(path)
        except FileNotFoundError:
            path.parent.mkdir(exist_ok=True, mode=0o700)
            self.temporary(ticket).rename(path)
