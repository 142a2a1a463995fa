"""Who writes into a folder, and whether it still lives.

Each writer holds a lock on a file of its own; the kernel lets go of it when the process dies,
however it dies. Unlike a process id this says the truth after a restart of the machine, when ids
are used again, and between containers, which do not see each other's processes.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class Writer:
    """The right to write into a folder. A process that forks must not use it on both sides."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self.name = f"{os.getpid()}.{os.urandom(4).hex()}"
        self._path = folder / self.name
        self._number = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    @property
    def present(self) -> bool:
        """Whether others can still see that this writer lives."""
        return self._path.exists()

    def ticket(self) -> str:
        """A name for one write. Not for two threads at once."""
        self._number += 1
        return f"{self.name}-{self._number}"

    def close(self) -> None:
        """Nothing more is written under this name."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._fd)


def lives(folder: Path, ticket: str) -> bool:
    """Whether the writer with this ticket may still write."""
    return _held(folder / ticket.rpartition("-")[0])


def forget_dead(folder: Path) -> None:
    """Remove the files of dead writers; only while no writer can be starting. Raises OSError."""
    for path in folder.iterdir():
        if not _held(path):
            path.unlink(missing_ok=True)


def _held(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
