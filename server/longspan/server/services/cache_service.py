"""CacheService: look at what is kept, check it, clear it."""

from __future__ import annotations

from longspan.blobstore.breaker import State
from longspan.internal.v1.worker_service_pb2 import Verified
from longspan.server.kv.holdings import Breaker, TierStats
from longspan.server.results.stats import ResultStats
from longspan.server.services import translate
from longspan.server.services.application import Application
from longspan.server.services.wire import Context
from longspan.v1 import cache_service_pb2 as pb
from longspan.v1 import cache_service_pb2_grpc

_BREAKERS = {
    Breaker.CLOSED: pb.BREAKER_STATE_CLOSED,
    Breaker.HALF_OPEN: pb.BREAKER_STATE_HALF_OPEN,
    Breaker.OPEN: pb.BREAKER_STATE_OPEN,
}
_STATES = {
    State.CLOSED: pb.BREAKER_STATE_CLOSED,
    State.HALF_OPEN: pb.BREAKER_STATE_HALF_OPEN,
    State.OPEN: pb.BREAKER_STATE_OPEN,
    None: pb.BREAKER_STATE_UNSPECIFIED,
}


class CacheService(cache_service_pb2_grpc.CacheServiceServicer):
    """Translates; the work is done by ``KvCache``, which only a decoder has, and ``Results``."""

    def __init__(self, application: Application) -> None:
        self._app = application

    async def Stats(self, request: pb.StatsRequest, context: Context) -> pb.StatsResponse:
        """Say what is kept where."""
        with self._app.admission.enter(context) as call:
            results = self._app.results
            answers = _answers(results.stats()) if results.enabled else None
            if self._app.kv is None:
                return pb.StatsResponse(result_cache=answers)
            stats = await self._app.kv.stats(call.tenant)
            workers = [
                pb.WorkerStats(name=one.name, kv=None if one.tiers is None else _tiers(one.tiers))
                for one in stats.workers
            ]
            return pb.StatsResponse(
                kv=_tiers(stats.tiers),
                workers=workers,
                held=translate.held(stats.held),
                result_cache=answers,
            )

    async def Verify(self, request: pb.VerifyRequest, context: Context) -> pb.VerifyResponse:
        """Read every KV page and answer on disk."""
        with self._app.admission.enter(context):
            answers = await self._app.results.verify()
            pages = Verified() if self._app.kv is None else await self._app.kv.verify()
            return pb.VerifyResponse(
                checked=pages.checked + answers.checked,
                damaged=pages.damaged + answers.damaged,
                missing=pages.missing + answers.missing,
                unknown=pages.unknown + answers.unknown,
                bytes=pages.bytes + answers.bytes,
            )

    async def Clear(self, request: pb.ClearRequest, context: Context) -> pb.ClearResponse:
        """Drop what is kept of the caller's documents."""
        with self._app.admission.enter(context) as call:
            answers = await self._app.results.clear(call.tenant)
            if self._app.kv is None:
                return pb.ClearResponse(answers=answers)
            cleared = await self._app.kv.clear(call.tenant)
            # What lies in a pool lies on the disk too, where there is one.
            pages = max(cleared.pool_pages, cleared.disk_pages)
            return pb.ClearResponse(pages=pages, bytes=cleared.disk_bytes, answers=answers)


def _tiers(stats: TierStats) -> pb.KvTierStats:
    return pb.KvTierStats(
        ram_bytes=stats.ram_bytes,
        ram_budget_bytes=stats.ram_budget_bytes,
        disk_bytes=stats.disk_bytes,
        disk_budget_bytes=stats.disk_budget_bytes,
        disk_pages=stats.disk_pages,
        loaded_pages=stats.loaded_pages,
        stored_pages=stats.stored_pages,
        evicted_pages=stats.evicted_pages,
        misses=stats.misses,
        breaker=_BREAKERS[stats.breaker],
    )


def _answers(stats: ResultStats) -> pb.ResultCacheStats:
    disk = stats.disk
    return pb.ResultCacheStats(
        hits={level.value: count for level, count in stats.hits.items()},
        misses=stats.misses,
        stored=stats.stored,
        memory_bytes=stats.memory_bytes,
        disk_answers=0 if disk is None else disk.entries,
        disk_bytes=0 if disk is None else disk.bytes,
        disk_budget_bytes=0 if disk is None else disk.budget_bytes,
        disk_breaker=_STATES[stats.disk_breaker],
        redis_breaker=_STATES[stats.redis],
    )
