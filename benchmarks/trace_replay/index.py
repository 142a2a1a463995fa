"""The SSD store's bookkeeping in memory: a rank for each entry, the lowest is evicted first."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from longspan.blobstore.eviction import Entry, EvictionPolicy


@dataclass(slots=True)
class _Known:
    entry: Entry
    hits: int
    rank: float


class RankedIndex:
    """Entries under keys, never more bytes than the capacity; the policy is the product's.

    As in the store: an entry is ranked when it is put and when it is used, and putting one that
    is there already counts as a use, though not as a hit.

    Attributes:
        bytes: of all entries.
    """

    def __init__(self, capacity_bytes: int, policy: EvictionPolicy) -> None:
        self.bytes = 0
        self._capacity = capacity_bytes
        self._policy = policy
        self._known: dict[bytes, _Known] = {}
        # Ranks that entries have or had; those they no longer have are passed over.
        self._heap: list[tuple[float, int, bytes]] = []
        self._order = 0
        self._floor = 0.0

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def use(self, key: bytes, now_s: float) -> None:
        """An entry was found. Raises KeyError."""
        known = self._known[key]
        known.hits += 1
        self._rank(key, known, now_s)

    def put(self, key: bytes, entry: Entry, now_s: float) -> bool:
        """Add an entry, evicting others if there is no room; False if it can never fit."""
        if key in self._known:
            self._rank(key, self._known[key], now_s)
            return True
        if entry.size_bytes > self._capacity:
            return False
        while self.bytes + entry.size_bytes > self._capacity:
            self._evict()
        self.bytes += entry.size_bytes
        known = self._known[key] = _Known(entry, 0, 0.0)
        self._rank(key, known, now_s)
        return True

    def _rank(self, key: bytes, known: _Known, now_s: float) -> None:
        known.rank = self._policy.rank(
            known.entry, used_s=now_s, hits=known.hits, floor=self._floor
        )
        self._order += 1
        heapq.heappush(self._heap, (known.rank, self._order, key))

    def _evict(self) -> None:
        while True:
            rank, _, key = heapq.heappop(self._heap)
            known = self._known.get(key)
            if known is not None and known.rank == rank:
                break
        del self._known[key]
        self.bytes -= known.entry.size_bytes
        self._floor = rank
