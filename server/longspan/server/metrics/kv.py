"""KV pages of all decoder workers: what lies where, and whether it was found."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.metrics.families import Families
from longspan.server.metrics.worker_meter import WorkerMeter

POOL, HOST, RAM, DISK = "pool", "host", "ram", "disk"


class KvMetrics:
    """Pools, what lies beside them on the host, and RAM are a worker's own and are summed; all
    workers of a server share the disk."""

    def __init__(self, families: Families) -> None:
        self._pages = families.gauge(
            "longspan_kv_pages",
            "KV pages of 256 tokens: used by running requests, cached or free in the pool, cached "
            "below it. There a page counts once for each group of layers. On the host lie those of "
            "the pool that hybrid-host keeps there.",
            "tier",
            "state",
        )
        self._bytes = families.gauge(
            "longspan_kv_bytes", "Bytes of KV pages that hold something.", "tier"
        )
        self._capacity = families.gauge(
            "longspan_kv_capacity_bytes", "What they may take at most.", "tier"
        )
        self._lookups = families.counter(
            "longspan_kv_lookups_total",
            "Whole pages of prompts that were looked for. Below the pool only what the tiers above "
            "did not have is.",
            "tier",
            "result",
        )
        self._slots = families.counter(
            "longspan_kv_slot_lookups_total",
            "Parts of pages on the host that a kv head chose. A miss was copied to the device.",
            "result",
        )
        self._failures = families.counter(
            "longspan_kv_store_failures_total",
            "Parts of pages that could not be written, or found no room.",
            "tier",
        )
        self._open = families.gauge(
            "longspan_kv_breaker_open", "1 while a tier is left alone because it failed.", "tier"
        )
        self._told: set[str] = set()
        self._corrupt = families.counter(
            "longspan_kv_corrupt_total", "Files of pages found damaged; none of them was used."
        )

    def computed(self, told: pb.Computed, kept: pb.Resources) -> None:
        """Pages were computed, since nobody had them; ``kept`` says which tiers there are."""
        self._count(POOL, "miss", told.computed_pages)
        for tier in (RAM, DISK):
            if kept.HasField(tier):
                self._count(tier, "miss", told.missing_pages)

    def grew(self, before: pb.Resources, now: pb.Resources) -> None:
        """What one worker has counted between two looks."""
        if not now.page_bytes:
            return
        self._count(POOL, "hit", now.found_pages - before.found_pages)
        self._count(POOL, "miss", now.brought_pages - before.brought_pages)
        for tier, earlier, later in (
            (RAM, before.ram, now.ram),
            (DISK, before.disk, now.disk),
        ):
            if now.HasField(tier):
                self._count(tier, "hit", later.hits - earlier.hits)
                self._count(tier, "miss", later.misses - earlier.misses)
        if now.HasField(HOST):
            self._slots.labels("hit").inc(now.host.hits - before.host.hits)
            self._slots.labels("miss").inc(now.host.misses - before.host.misses)
        if now.HasField(DISK):
            self._failures.labels(DISK).inc(now.disk.store_failures - before.disk.store_failures)
            self._corrupt.inc(now.disk.corrupt - before.disk.corrupt)

    def sample(self, workers: Collection[WorkerMeter]) -> None:
        """The pages of the workers that live."""
        used, cached = sum(one.used_pages for one in workers), sum(w.cached_pages for w in workers)
        # Where numbers of pages run out before their memory, fewer are free than lie there.
        free = max(sum(one.total_pages for one in workers) - used - cached, 0)
        for state, pages in (("used", used), ("cached", cached), ("free", free)):
            self._pages.labels(POOL, state).set(pages)
        self._bytes.labels(POOL).set(sum(one.pool_bytes for one in workers))
        self._capacity.labels(POOL).set(sum(one.pool_capacity_bytes for one in workers))
        self._below(HOST, [one.kept.host for one in workers if one.kept.HasField(HOST)])
        self._below(RAM, [one.kept.ram for one in workers if one.kept.HasField(RAM)])
        disks = [one.kept.disk for one in workers if one.kept.HasField(DISK)]
        if disks:
            # What lies there stays when all workers are gone.
            self._below(DISK, [max(disks, key=lambda one: one.bytes)])
            self._open.labels(DISK).set(any(one.breaker_open for one in disks))

    def _below(self, tier: str, told: Sequence[pb.Tier]) -> None:
        self._told |= {tier} if told else set()
        if tier in self._told:
            self._pages.labels(tier, "cached").set(sum(one.pages for one in told))
            self._bytes.labels(tier).set(sum(one.bytes for one in told))
            self._capacity.labels(tier).set(sum(one.capacity_bytes for one in told))

    def _count(self, tier: str, result: str, pages: int) -> None:
        self._lookups.labels(tier, result).inc(pages)
