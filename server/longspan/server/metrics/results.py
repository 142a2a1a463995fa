"""The result cache: what was asked of its levels, and how they are."""

from __future__ import annotations

from longspan.blobstore.breaker import State
from longspan.server.metrics.families import Families
from longspan.server.results.levels import Level
from longspan.server.results.stats import ResultStats

L1, L2, FLIGHT = "l1", "l2", "flight"


class ResultMetrics:
    """Level 1 is memory or Redis, level 2 is the disk; a flight is an answer being made."""

    def __init__(self, families: Families) -> None:
        self._lookups = families.counter(
            "longspan_result_cache_lookups_total",
            "Answers looked for: in memory or Redis (l1), on disk (l2), among those in the making "
            "(flight).",
            "level",
            "result",
        )
        self._open = families.gauge(
            "longspan_result_cache_breaker_open",
            "1 while a level is left alone because it failed or was slow.",
            "level",
        )
        self._bytes = families.gauge(
            "longspan_result_cache_bytes",
            "Bytes of answers; of a Redis nothing is known here.",
            "level",
        )

    def looked_up(self, found: Level | None, *, first: bool, disk: bool) -> None:
        """An answer was looked for on the levels that there are."""
        in_first = found in (Level.MEMORY, Level.REDIS)
        if first:
            self._count(L1, hit=in_first)
        if disk and not in_first:
            self._count(L2, hit=found is Level.DISK)

    def joined(self, *, hit: bool) -> None:
        """A request followed an equal one that was running, or led."""
        self._count(FLIGHT, hit=hit)

    def sample(self, stats: ResultStats) -> None:
        """How the levels are now."""
        if stats.redis is not None:
            self._open.labels(L1).set(stats.redis is not State.CLOSED)
        else:
            self._open.labels(L1).set(0)
            self._bytes.labels(L1).set(stats.memory_bytes)
        if stats.disk is not None:
            self._open.labels(L2).set(stats.disk_breaker is not State.CLOSED)
            self._bytes.labels(L2).set(stats.disk.bytes)

    def _count(self, level: str, *, hit: bool) -> None:
        self._lookups.labels(level, "hit" if hit else "miss").inc()
