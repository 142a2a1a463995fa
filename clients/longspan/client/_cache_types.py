"""What the server tells of what it keeps: plain frozen values, no protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from longspan.client._types import KvHolding


class Breaker(Enum):
    """Whether something that may fail, a disk or a Redis, is used."""

    UNKNOWN = "unknown"
    CLOSED = "closed"
    # It failed and is being tried again.
    HALF_OPEN = "half_open"
    # It failed and is left alone for a while.
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTierStats:
    """What lies below the page pools, and what was done there since the workers started.

    Attributes:
        misses: pages that were looked for and not read, by reason.
    """

    ram_bytes: int
    ram_budget_bytes: int
    disk_bytes: int
    disk_budget_bytes: int
    disk_pages: int
    loaded_pages: int
    stored_pages: int
    evicted_pages: int
    misses: Mapping[str, int]
    breaker: Breaker


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One worker; ``kv`` is None where it did not answer in time."""

    name: str
    kv: KvTierStats | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultCacheStats:
    """Answers that are kept; the counters begin with the server.

    Attributes:
        hits: requests answered without work of their own, by where the answer was found:
            ``memory``, ``redis``, ``disk``, or ``flight`` for an equal request that was running.
        misses: requests that were looked up and answered anew.
        disk_breaker, redis_breaker: ``UNKNOWN`` where there is no disk, or no Redis.
    """

    hits: Mapping[str, int]
    misses: int
    stored: int
    memory_bytes: int
    disk_answers: int
    disk_bytes: int
    disk_budget_bytes: int
    disk_breaker: Breaker
    redis_breaker: Breaker


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What is kept.

    Attributes:
        kv: of all workers that answered, together; their folder on disk counts once. None
            without a decoder, as is ``held``.
        held: of the caller's documents and uploads.
        answers: None where the server keeps none.
    """

    kv: KvTierStats | None
    workers: tuple[WorkerStats, ...]
    held: KvHolding | None
    answers: ResultCacheStats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheVerified:
    """What was found on disk, in files: one an answer, and for most models one a page.

    Attributes:
        damaged, unknown: removed.
        missing: known, but not there.
        bytes: read.
    """

    checked: int
    damaged: int
    missing: int
    unknown: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCleared:
    """What was dropped; ``bytes`` of the disk, for pages."""

    pages: int
    bytes: int
    answers: int = 0
