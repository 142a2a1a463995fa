"""What is kept, from wire messages to values."""

from __future__ import annotations

from longspan.client._cache_types import (
    Breaker,
    CacheCleared,
    CacheStats,
    CacheVerified,
    KvTierStats,
    ResultCacheStats,
    WorkerStats,
)
from longspan.client._events import kv_holding
from longspan.v1 import cache_service_pb2 as pb

_BREAKERS = {
    pb.BREAKER_STATE_CLOSED: Breaker.CLOSED,
    pb.BREAKER_STATE_HALF_OPEN: Breaker.HALF_OPEN,
    pb.BREAKER_STATE_OPEN: Breaker.OPEN,
}


def stats(message: pb.StatsResponse) -> CacheStats:
    """What is kept."""
    return CacheStats(
        kv=_tiers(message.kv) if message.HasField("kv") else None,
        workers=tuple(
            WorkerStats(one.name, _tiers(one.kv) if one.HasField("kv") else None)
            for one in message.workers
        ),
        held=kv_holding(message.held) if message.HasField("held") else None,
        answers=_answers(message.result_cache) if message.HasField("result_cache") else None,
    )


def verified(message: pb.VerifyResponse) -> CacheVerified:
    """What was found."""
    return CacheVerified(
        checked=message.checked,
        damaged=message.damaged,
        missing=message.missing,
        unknown=message.unknown,
        bytes=message.bytes,
    )


def cleared(message: pb.ClearResponse) -> CacheCleared:
    """What was dropped."""
    return CacheCleared(pages=message.pages, bytes=message.bytes, answers=message.answers)


def _answers(message: pb.ResultCacheStats) -> ResultCacheStats:
    return ResultCacheStats(
        hits=dict(message.hits),
        misses=message.misses,
        stored=message.stored,
        memory_bytes=message.memory_bytes,
        disk_answers=message.disk_answers,
        disk_bytes=message.disk_bytes,
        disk_budget_bytes=message.disk_budget_bytes,
        disk_breaker=_BREAKERS.get(message.disk_breaker, Breaker.UNKNOWN),
        redis_breaker=_BREAKERS.get(message.redis_breaker, Breaker.UNKNOWN),
    )


def _tiers(message: pb.KvTierStats) -> KvTierStats:
    return KvTierStats(
        ram_bytes=message.ram_bytes,
        ram_budget_bytes=message.ram_budget_bytes,
        disk_bytes=message.disk_bytes,
        disk_budget_bytes=message.disk_budget_bytes,
        disk_pages=message.disk_pages,
        loaded_pages=message.loaded_pages,
        stored_pages=message.stored_pages,
        evicted_pages=message.evicted_pages,
        misses=dict(message.misses),
        breaker=_BREAKERS.get(message.breaker, Breaker.UNKNOWN),
    )
