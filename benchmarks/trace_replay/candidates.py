"""Eviction policies that were tried against ``LeastRecentlyUsed`` and are not in the product."""

from __future__ import annotations

import math

from longspan.blobstore.eviction import Entry

_LINK = 1e-6
"""Of two blobs of a chain that are otherwise equal, the deeper one goes first."""


class FrequencyAged:
    """LFU with dynamic ageing: uses count, and newcomers start at the last victim's rank."""

    def rank(self, entry: Entry, *, used_s: float, hits: int, floor: float) -> float:
        """See ``EvictionPolicy.rank``."""
        return floor + hits + 1 - entry.depth * _LINK


class GreedyDualSizeFrequency:
    """GDSF: uses times the seconds that a byte saves, above the last victim's rank."""

    def rank(self, entry: Entry, *, used_s: float, hits: int, floor: float) -> float:
        """See ``EvictionPolicy.rank``."""
        value = (hits + 1) * entry.cost_s / entry.size_bytes
        return floor + value - entry.depth * _LINK


class HeadsFirst:
    """Prefix-aware: as LRU, but each link down a chain makes a blob some seconds older."""

    def __init__(self, link_s: float) -> None:
        self._link_s = link_s

    def rank(self, entry: Entry, *, used_s: float, hits: int, floor: float) -> float:
        """See ``EvictionPolicy.rank``."""
        return used_s - entry.depth * self._link_s


class RecencyAndFrequency:
    """As LRU, but each doubling of its uses makes a blob some seconds younger."""

    def __init__(self, doubling_s: float) -> None:
        self._doubling_s = doubling_s

    def rank(self, entry: Entry, *, used_s: float, hits: int, floor: float) -> float:
        """See ``EvictionPolicy.rank``."""
        return used_s + self._doubling_s * math.log2(1 + hits) - entry.depth * _LINK


class Segmented:
    """Two segments: what was never found goes before all that was, each part by LRU."""

    def rank(self, entry: Entry, *, used_s: float, hits: int, floor: float) -> float:
        """See ``EvictionPolicy.rank``."""
        protected = 1e6 if hits else 0.0
        return protected + used_s - entry.depth * _LINK
