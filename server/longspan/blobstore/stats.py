"""What a store has done, in numbers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Put(StrEnum):
    """What became of a blob that was to be stored."""

    STORED = "stored"
    ALREADY = "already"  # it is there, or somebody is writing it
    REFUSED_QUOTA = "refused_quota"  # larger than what is left of its tenant's share
    REFUSED_SPACE = "refused_space"  # larger than the budget, or the disk is too full
    FAILED = "failed"  # an I/O error


class Miss(StrEnum):
    """Why a blob was not read."""

    ABSENT = "absent"  # not known
    GONE = "gone"  # known, but its file has been removed
    IO = "io"  # the file could not be read
    # The rest is damage: the file is removed.
    LENGTH = "length"
    MAGIC = "magic"
    VERSION = "version"
    HEADER = "header"
    KEY = "key"
    CHECKSUM = "checksum"


DAMAGE = frozenset(Miss) - {Miss.ABSENT, Miss.GONE, Miss.IO}


@dataclass(frozen=True, slots=True)
class Stats:
    """A moment of a store.

    ``entries`` and ``bytes`` are the folder's, as this process last saw them (blobs being written
    are among them); the counters are this process's own, since it opened the folder.
    """

    entries: int
    bytes: int
    budget_bytes: int
    hits: int
    misses: Mapping[Miss, int]
    puts: Mapping[Put, int]
    evicted: int
    io_errors: int
    degraded: bool  # the last use of the index failed


class Counters:
    """Counts; safe to use from any thread, and never held up by I/O."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hits = 0
        self._misses: Counter[Miss] = Counter()
        self._puts: Counter[Put] = Counter()
        self._evicted = 0
        self._io_errors = 0

    def hit(self) -> None:
        """A blob was read."""
        with self._lock:
            self._hits += 1

    def miss(self, reason: Miss) -> None:
        """A blob was not read."""
        with self._lock:
            self._misses[reason] += 1
            self._io_errors += reason is Miss.IO

    def put(self, outcome: Put) -> None:
        """A blob was stored, or not."""
        with self._lock:
            self._puts[outcome] += 1

    def evicted(self, count: int) -> None:
        """Blobs made room for others."""
        with self._lock:
            self._evicted += count

    def io_error(self) -> None:
        """The disk or the index refused an operation."""
        with self._lock:
            self._io_errors += 1

    def stats(self, *, entries: int, size_bytes: int, budget_bytes: int, degraded: bool) -> Stats:
        """The counters as they stand, beside what the store holds."""
        with self._lock:
            return Stats(
                entries=entries,
                bytes=size_bytes,
                budget_bytes=budget_bytes,
                hits=self._hits,
                misses=dict(self._misses),
                puts=dict(self._puts),
                evicted=self._evicted,
                io_errors=self._io_errors,
                degraded=degraded,
            )
