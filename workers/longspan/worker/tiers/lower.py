"""Parts of pages below the pool: RAM first, then SSD behind a breaker."""

from __future__ import annotations

import time
from collections import Counter

from longspan.blobstore.breaker import Breaker, Permit
from longspan.blobstore.stats import Put
from longspan.blobstore.store import BlobStore
from longspan.worker.kv.label import Label
from longspan.worker.tiers.part import Part
from longspan.worker.tiers.ram import RamTier

REFRESH_S = 1.0
"""How often what other workers stored is learnt of."""

MOST_READ = 65_536
"""Parts that were read and not yet used, of which it is known that they were read."""


class LowerTiers:
    """Safe from any thread; ``load`` and ``store`` block.

    Args:
        ram: keeps copies of what was moved last.
        disk: keeps everything, within its budget; None: there is none.
        breaker: of the disk; it is left alone while that is open.
        layout: what tells this worker's way to lay out pages from others.

    Attributes:
        misses: of the disk, but those that it counts itself, by reason.
        ram_hits, ram_misses: parts looked for in RAM.
        not_tried: parts that were not stored since the breaker was open.
    """

    def __init__(
        self, ram: RamTier, disk: BlobStore | None, breaker: Breaker, layout: bytes
    ) -> None:
        self.ram = ram
        self.disk = disk
        self.breaker = breaker
        self.misses: Counter[str] = Counter()
        self.ram_hits = self.ram_misses = self.not_tried = 0
        self._layout = layout
        self._read: dict[bytes, None] = {}
        self._refreshed_s = time.monotonic()

    def knows(self, part: Part) -> bool:
        """True where ``load`` would find it, as far as is known without I/O."""
        name = part.name(self._layout)
        if name in self.ram:
            return True
        if self.disk is None or not self.disk.known(name):
            return False
        return not self.breaker.refuses(time.monotonic())

    def load(self, part: Part, size: int) -> memoryview | None:
        """A part's ``size`` bytes; None where it is gone, damaged, or the disk fails."""
        name = part.name(self._layout)
        kept = self.ram.get(name)
        if kept is not None:
            self.ram_hits += 1
            return kept
        self.ram_misses += 1
        permit = self.breaker.admit(time.monotonic())
        if self.disk is None or permit is None:
            self.misses["disk unavailable"] += 1
            return None
        data = memoryview(bytearray(size))
        errors = self.disk.stats.io_errors
        whole = self.disk.read_into(name, data)
        # What is absent was not looked for: that says nothing of the disk.
        self._report(permit, good=whole, bad=self.disk.stats.io_errors > errors)
        if whole:
            self._note_read(name)
        return data if whole else None

    def store(self, part: Part, data: memoryview, label: Label, cost_s: float) -> bool:
        """Keep a copy; False where the disk has no room for it, or fails."""
        name = part.name(self._layout)
        self.ram.put(name, data, label)
        if self.disk is None:
            return True
        permit = self.breaker.admit(time.monotonic())
        if permit is None:
            self.not_tried += 1
            return False
        self._refresh(self.disk)
        parent = Part(label.parent, part.group).name(self._layout) if label.parent else None
        outcome = self.disk.put(
            name,
            [data],
            tenant=label.tenant,
            subject=label.subject,
            parent=parent,
            cost=cost_s,
        )
        # What is there already was not written.
        self._report(permit, good=outcome is Put.STORED, bad=outcome is Put.FAILED)
        return outcome in (Put.STORED, Put.ALREADY)

    def rename(self, tenant: str, old: str, new: str) -> None:
        """A subject has another name from now on."""
        self.ram.rename(tenant, old, new)
        if self.disk is not None:
            self.disk.rename_subject(tenant, old, new)

    def touch(self, part: Part) -> None:
        """It was used out of the pool: it must not look unused here.

        One that was read for this use counts already.
        """
        name = part.name(self._layout)
        if self.disk is not None and self._read.pop(name, self) is self:
            self.disk.touch(name)

    def close(self) -> None:
        """Let go of the disk."""
        if self.disk is not None:
            self.disk.close()

    def _note_read(self, name: bytes) -> None:
        if len(self._read) >= MOST_READ:
            self._read.clear()
        self._read[name] = None

    def _report(self, permit: Permit, *, good: bool, bad: bool) -> None:
        now = time.monotonic()
        if bad:
            self.breaker.failed(permit, now)
        elif good:
            self.breaker.succeeded(permit, now)
        else:
            self.breaker.ended(permit, now)

    def _refresh(self, disk: BlobStore) -> None:
        now = time.monotonic()
        if now - self._refreshed_s > REFRESH_S:
            self._refreshed_s = now
            disk.refresh()
