"""What the workers keep, put together from what each of them tells. Pure.

All workers of a server share one folder on disk: what one tells of it, the others tell
too, so the largest number counts, not the sum. Pages in pools and RAM are each worker's own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.queue.job import Subject


class Breaker(IntEnum):
    """Whether the disk is used; the largest is the worst."""

    CLOSED = 1
    HALF_OPEN = 2
    OPEN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Where the pages of one subject lie, or of several together.

    Attributes:
        hits: pages found instead of computed.
        age_s: since one of them was last used; None where none lies on disk.
    """

    pool_pages: int = 0
    ram_pages: int = 0
    disk_pages: int = 0
    disk_bytes: int = 0
    hits: int = 0
    age_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierStats:
    """What lies below the page pools, and what was done there since the workers started."""

    ram_bytes: int = 0
    ram_budget_bytes: int = 0
    disk_bytes: int = 0
    disk_budget_bytes: int = 0
    disk_pages: int = 0
    loaded_pages: int = 0
    stored_pages: int = 0
    evicted_pages: int = 0
    misses: Mapping[str, int] = field(default_factory=dict)
    breaker: Breaker = Breaker.CLOSED

    @classmethod
    def of(cls, stats: pb.TierStats) -> TierStats:
        """What one worker tells."""
        return cls(
            ram_bytes=stats.ram_bytes,
            ram_budget_bytes=stats.ram_budget_bytes,
            disk_bytes=stats.disk_bytes,
            disk_budget_bytes=stats.disk_budget_bytes,
            disk_pages=stats.disk_pages,
            loaded_pages=stats.loaded_pages,
            stored_pages=stats.stored_pages,
            evicted_pages=stats.evicted_pages,
            misses=dict(stats.misses),
            breaker=_BREAKERS.get(stats.breaker, Breaker.CLOSED),
        )


_BREAKERS = {"closed": Breaker.CLOSED, "half open": Breaker.HALF_OPEN, "open": Breaker.OPEN}


def together(workers: Sequence[TierStats]) -> TierStats:
    """All workers as one."""
    misses: Counter[str] = Counter()
    for worker in workers:
        misses.update(worker.misses)
    return TierStats(
        ram_bytes=sum(worker.ram_bytes for worker in workers),
        ram_budget_bytes=sum(worker.ram_budget_bytes for worker in workers),
        disk_bytes=max((worker.disk_bytes for worker in workers), default=0),
        disk_budget_bytes=max((worker.disk_budget_bytes for worker in workers), default=0),
        disk_pages=max((worker.disk_pages for worker in workers), default=0),
        loaded_pages=sum(worker.loaded_pages for worker in workers),
        stored_pages=sum(worker.stored_pages for worker in workers),
        evicted_pages=sum(worker.evicted_pages for worker in workers),
        misses=dict(misses),
        breaker=max((worker.breaker for worker in workers), default=Breaker.CLOSED),
    )


def by_subject(workers: Iterable[pb.Holdings], tenant: str) -> dict[Subject, Held]:
    """Where the pages of each of a tenant's subjects lie."""
    told: defaultdict[Subject, list[pb.Holding]] = defaultdict(list)
    for worker in workers:
        for holding in worker.holdings:
            if holding.tenant == tenant:
                told[Subject(holding.subject)].append(holding)
    return {subject: _held(holdings) for subject, holdings in told.items()}


def total(held: Iterable[Held]) -> Held:
    """Several subjects as one."""
    all_held = list(held)
    return Held(
        pool_pages=sum(one.pool_pages for one in all_held),
        ram_pages=sum(one.ram_pages for one in all_held),
        disk_pages=sum(one.disk_pages for one in all_held),
        disk_bytes=sum(one.disk_bytes for one in all_held),
        hits=sum(one.hits for one in all_held),
        age_s=min((one.age_s for one in all_held if one.age_s is not None), default=None),
    )


def _held(holdings: Sequence[pb.Holding]) -> Held:
    """One subject, as each of the workers tells of it."""
    ages = [holding.age_s for holding in holdings if holding.disk_pages]
    # The folder is told of what pools find: what it knows of is larger, unless it keeps nothing.
    shared_hits = max(holding.disk_hits for holding in holdings)
    own_hits = 0 if shared_hits else sum(holding.hits for holding in holdings)
    return Held(
        pool_pages=sum(holding.pool_pages for holding in holdings),
        ram_pages=sum(holding.ram_pages for holding in holdings),
        disk_pages=max(holding.disk_pages for holding in holdings),
        disk_bytes=max(holding.disk_bytes for holding in holdings),
        hits=max(shared_hits, own_hits),
        age_s=min(ages, default=None),
    )
