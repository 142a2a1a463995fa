"""Answers those who ask what pages lie where, and those who want them gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.kv.pages import PageTable
from longspan.worker.kv.subjects import Name
from longspan.worker.tiers.mover import Mover, logged


@dataclass(slots=True)
class _Holding:
    pool: int = 0
    ram: int = 0
    disk: int = 0
    disk_bytes: int = 0
    hits: int = 0
    disk_hits: int = 0
    used_s: float = 0.0


class Holdings:
    """The disk is asked in threads of its own; ``answers`` has what came back.

    Args:
        table: of the pool.
        mover: to the tiers below it; None: there are none.
    """

    def __init__(self, table: PageTable, mover: Mover | None) -> None:
        self._table = table
        self._mover = mover
        # Two: what lies where can be told while all files are being read.
        self._threads = ThreadPoolExecutor(2, "kv-holdings")
        self._answers: SimpleQueue[pb.Event] = SimpleQueue()
        self.wake: Callable[[], None] = lambda: None

    def inventory(self, request: pb.Inventory) -> None:
        """Ask what lies where; ``answers`` will have Holdings."""
        found: dict[Name, _Holding] = {}
        for name, pages in self._table.known(request.tenant, request.subjects):
            hits = sum(known.hits for known in pages)
            found[name] = _Holding(pool=len(pages), hits=hits)
        self._answer(lambda: self._holdings(request, found))

    def forget(self, request: pb.Forget) -> None:
        """Drop pages; ``answers`` will have Forgotten.

        Below the pool that happens behind what is being stored, which would lie there for ever.
        """
        pages = self._table.forget(request.tenant, request.subject)
        if self._mover is None:
            self._answer(lambda: self._forgotten(request, pages))
            return
        self._mover.later(lambda: self._tell(self._forgotten(request, pages)))

    def drop(self, tenant: str, subject: str) -> None:
        """Drop the pages of a subject; nobody has asked, so nobody is told."""
        self._table.forget(tenant, subject)
        if self._mover is not None:
            self._mover.later(lambda: self._drop_below(tenant, subject))

    def rename(self, tenant: str, old: str, new: str) -> None:
        """A subject has another name from now on."""
        self._table.rename(tenant, old, new)
        if self._mover is not None:
            lower = self._mover.lower
            self._mover.later(lambda: lower.rename(tenant, old, new))

    def verify(self, request: pb.Verify) -> None:
        """Read all files; ``answers`` will have Verified."""
        self._answer(lambda: self._verified(request))

    def answers(self) -> list[pb.Event]:
        """What has been found out since the last call."""
        found: list[pb.Event] = []
        while True:
            try:
                found.append(self._answers.get_nowait())
            except Empty:
                return found

    def close(self) -> None:
        """Wait for what runs."""
        self._threads.shutdown(cancel_futures=True)

    def _answer(self, work: Callable[[], pb.Event]) -> None:
        self._threads.submit(logged, lambda: self._tell(work()))

    def _tell(self, answer: pb.Event) -> None:
        self._answers.put(answer)
        self.wake()

    def _holdings(self, request: pb.Inventory, found: dict[Name, _Holding]) -> pb.Event:
        stats = pb.TierStats(breaker="closed")
        if self._mover is not None:
            self._look_below(self._mover, request, found)
            stats = self._stats(self._mover)
        now = time.time()
        holdings = [
            pb.Holding(
                tenant=tenant,
                subject=subject,
                pool_pages=holding.pool,
                ram_pages=holding.ram,
                disk_pages=holding.disk,
                disk_bytes=holding.disk_bytes,
                hits=max(holding.hits, holding.disk_hits),
                disk_hits=holding.disk_hits,
                age_s=max(now - holding.used_s, 0.0) if holding.used_s else 0.0,
            )
            for (tenant, subject), holding in found.items()
        ]
        return pb.Event(
            holdings=pb.Holdings(request_id=request.request_id, holdings=holdings, stats=stats)
        )

    def _look_below(self, mover: Mover, request: pb.Inventory, found: dict[Name, _Holding]) -> None:
        for name, parts in mover.lower.ram.counts(request.tenant, request.subjects).items():
            found.setdefault(name, _Holding()).ram += parts
        if mover.lower.disk is None:
            return
        for subject in mover.lower.disk.subjects(request.tenant or None, request.subjects):
            holding = found.setdefault((subject.tenant, subject.subject), _Holding())
            holding.disk += subject.entries
            holding.disk_bytes += subject.bytes
            holding.disk_hits += subject.hits
            holding.used_s = max(holding.used_s, subject.used_s)

    def _stats(self, mover: Mover) -> pb.TierStats:
        stats = pb.TierStats(
            ram_bytes=mover.lower.ram.used_bytes,
            ram_budget_bytes=mover.lower.ram.budget_bytes,
            loaded_pages=mover.loaded,
            stored_pages=mover.stored,
            breaker=mover.lower.breaker.state.name.lower().replace("_", " "),
            misses=dict(mover.lower.misses),
        )
        if mover.lower.disk is not None:
            mover.lower.disk.refresh()
            disk = mover.lower.disk.stats
            stats.disk_bytes, stats.disk_budget_bytes = disk.bytes, disk.budget_bytes
            stats.disk_pages, stats.evicted_pages = disk.entries, disk.evicted
            for reason, count in disk.misses.items():
                stats.misses[str(reason)] += count
        return stats

    def _forgotten(self, request: pb.Forget, pages: int) -> pb.Event:
        removed, freed = self._remove(request.tenant, request.subject)
        return pb.Event(
            forgotten=pb.Forgotten(
                request_id=request.request_id,
                pool_pages=pages,
                disk_pages=removed,
                disk_bytes=freed,
            )
        )

    def _drop_below(self, tenant: str, subject: str) -> None:
        self._remove(tenant, subject)

    def _remove(self, tenant: str, subject: str) -> tuple[int, int]:
        """Pages and bytes that were removed from the disk; those in RAM go too."""
        if self._mover is None:
            return 0, 0
        self._mover.lower.ram.forget(tenant, subject)
        disk = self._mover.lower.disk
        if disk is None:
            return 0, 0
        disk.refresh()
        before = disk.stats.bytes
        removed = disk.remove_subject(tenant, subject) if subject else disk.clear(tenant or None)
        return removed, max(before - disk.stats.bytes, 0)

    def _verified(self, request: pb.Verify) -> pb.Event:
        verified = pb.Verified(request_id=request.request_id)
        if self._mover is not None and self._mover.lower.disk is not None:
            report = self._mover.lower.disk.verify()
            verified.checked, verified.damaged = report.checked, report.damaged
            verified.missing, verified.unknown = report.missing, report.unknown
            verified.bytes = report.bytes
        return pb.Event(verified=verified)
