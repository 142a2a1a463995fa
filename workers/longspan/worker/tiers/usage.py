"""What a worker's KV pages take, tier by tier, and how often they were found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longspan.blobstore.breaker import State
from longspan.blobstore.stats import DAMAGE, Put
from longspan.blobstore.store import BlobStore
from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.attention.host_pages import HostPages
from longspan.worker.attention.pool import LayerPages
from longspan.worker.kv.pages import PageTable
from longspan.worker.tiers.lower import LowerTiers
from longspan.worker.tiers.mover import Mover


@dataclass(frozen=True, slots=True)
class HostUsage:
    """Pages that lie on the host because a policy keeps them there.

    Args:
        table: of the pool.
        layers: likewise.
        page_bytes: of a page on the host.
    """

    table: PageTable
    layers: Sequence[LayerPages]
    page_bytes: int

    def tier(self) -> pb.Tier:
        """What they take; hits are parts of chosen pages that lay on the device already."""
        slots = [layer.slots for layer in self.layers if isinstance(layer, HostPages)]
        return pb.Tier(
            pages=self.table.numbered,
            bytes=self.table.numbered * self.page_bytes,
            capacity_bytes=self.table.numbers * self.page_bytes,
            hits=sum(one.hits for one in slots),
            misses=sum(one.misses for one in slots),
        )


@dataclass(slots=True)
class KvUsage:
    """Looks without I/O and without locks that a step would wait for.

    Args:
        table: of the pool.
        page_bytes: of one of its pages.
        mover: to the tiers below it; None: there are none.
        host: what lies on the host; None: nothing does.
    """

    table: PageTable
    page_bytes: int
    mover: Mover | None
    host: HostUsage | None = None
    _found: int = 0

    def tell(self, resources: pb.Resources) -> None:
        """Fill in what is known of the pages."""
        brought = 0 if self.mover is None else self.mover.loaded
        # A page that was brought is found a moment later; a count must not go back meanwhile.
        self._found = max(self._found, self.table.found - brought)
        resources.page_bytes = self.page_bytes
        resources.found_pages, resources.brought_pages = self._found, brought
        if self.host is not None:
            resources.host.CopyFrom(self.host.tier())
        if self.mover is None:
            return
        lower = self.mover.lower
        if lower.ram.budget_bytes:
            resources.ram.CopyFrom(_ram(lower))
        if lower.disk is not None:
            resources.disk.CopyFrom(_disk(lower, lower.disk))


def _ram(lower: LowerTiers) -> pb.Tier:
    return pb.Tier(
        pages=len(lower.ram),
        bytes=lower.ram.used_bytes,
        capacity_bytes=lower.ram.budget_bytes,
        hits=lower.ram_hits,
        misses=lower.ram_misses,
    )


def _disk(lower: LowerTiers, disk: BlobStore) -> pb.Tier:
    stats = disk.stats
    failed = sum(stats.puts.get(outcome, 0) for outcome in (Put.FAILED, Put.REFUSED_SPACE))
    return pb.Tier(
        pages=stats.entries,
        bytes=stats.bytes,
        capacity_bytes=stats.budget_bytes,
        hits=stats.hits,
        misses=sum(stats.misses.values()) + lower.misses.total(),
        store_failures=failed + lower.not_tried,
        corrupt=sum(count for reason, count in stats.misses.items() if reason in DAMAGE),
        breaker_open=lower.breaker.state is not State.CLOSED,
    )
