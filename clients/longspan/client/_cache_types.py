"""What the server tells of what it keeps: plain frozen values, no protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from longspan.client._types import KvHolding


class Breaker(Enum):
    """Whether the decoder's workers use their disk."""

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
class CacheStats:
    """What is kept.

    Attributes:
        kv: of all workers that answered, together; their folder on disk counts once. None
            without a decoder, as is ``held``.
        held: of the caller's documents and uploads.
    """

    kv: KvTierStats | None
    workers: tuple[WorkerStats, ...]
    held: KvHolding | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheVerified:
    """What was found on disk, in files: most models have one a page.

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
    """What was dropped; ``bytes`` of the disk."""

    pages: int
    bytes: int
