"""CacheService: look at what is kept, check it, clear it."""

from __future__ import annotations

from longspan.server.kv.holdings import Breaker, TierStats
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


class CacheService(cache_service_pb2_grpc.CacheServiceServicer):
    """Translates; the work is done by ``KvCache``. Without a decoder there is nothing to keep."""

    def __init__(self, application: Application) -> None:
        self._app = application

    async def Stats(self, request: pb.StatsRequest, context: Context) -> pb.StatsResponse:
        """Say what is kept where."""
        with self._app.admission.enter(context) as call:
            if self._app.kv is None:
                return pb.StatsResponse()
            stats = await self._app.kv.stats(call.tenant)
            workers = [
                pb.WorkerStats(name=one.name, kv=None if one.tiers is None else _tiers(one.tiers))
                for one in stats.workers
            ]
            return pb.StatsResponse(
                kv=_tiers(stats.tiers), workers=workers, held=translate.held(stats.held)
            )

    async def Verify(self, request: pb.VerifyRequest, context: Context) -> pb.VerifyResponse:
        """Read every KV page on disk."""
        with self._app.admission.enter(context):
            if self._app.kv is None:
                return pb.VerifyResponse()
            verified = await self._app.kv.verify()
            return pb.VerifyResponse(
                checked=verified.checked,
                damaged=verified.damaged,
                missing=verified.missing,
                unknown=verified.unknown,
                bytes=verified.bytes,
            )

    async def Clear(self, request: pb.ClearRequest, context: Context) -> pb.ClearResponse:
        """Drop what is kept of the caller's documents."""
        with self._app.admission.enter(context) as call:
            if self._app.kv is None:
                return pb.ClearResponse()
            cleared = await self._app.kv.clear(call.tenant)
            # What lies in a pool lies on the disk too, where there is one.
            pages = max(cleared.pool_pages, cleared.disk_pages)
            return pb.ClearResponse(pages=pages, bytes=cleared.disk_bytes)


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
