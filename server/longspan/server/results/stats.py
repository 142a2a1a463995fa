"""What the result cache has done, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from longspan.blobstore import stats as blobs
from longspan.blobstore.breaker import State
from longspan.server.results.levels import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultStats:
    """A moment of the cache; the counters begin with the server.

    Attributes:
        hits: requests answered without their own work, by level.
        misses: requests that were looked up and answered anew.
        stored: answers kept.
        dropped: answers not kept, because too many were being kept.
        takeovers: followers that went on where a leader ended.
        too_large: answers too long to be kept.
        flights: answers that are being made or kept now.
        memory_bytes: what level 1 takes of the server's memory.
        redis: the breaker before Redis; None without Redis.
        disk: level 2; None where it is off.
        disk_breaker: the breaker before it.
    """

    hits: Mapping[Level, int]
    misses: int
    stored: int
    dropped: int
    takeovers: int
    too_large: int
    flights: int
    memory_bytes: int
    redis: State | None
    disk: blobs.Stats | None
    disk_breaker: State | None


@dataclass(slots=True)
class Counts:
    """The counters of one server."""

    hits: Counter[Level] = field(default_factory=Counter)
    misses: int = 0
    stored: int = 0
    dropped: int = 0
    takeovers: int = 0
    too_large: int = 0
