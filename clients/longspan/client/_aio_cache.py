"""The server's cache, on the event loop."""

from __future__ import annotations

from longspan.client import _cache_wire
from longspan.client._aio_wire import AsyncWire
from longspan.client._cache_types import CacheCleared, CacheStats, CacheVerified
from longspan.v1 import cache_service_pb2 as pb


class AsyncCache:
    """What the server keeps of documents so that it need not compute it again.

    ::

        stats = await client.cache.stats()
    """

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire

    async def stats(self) -> CacheStats:
        """Say what is kept where."""
        wire, request = self._wire, pb.StatsRequest()
        response = await wire.retrying(
            lambda deadline: wire.unary(wire.caches.Stats, request, deadline)
        )
        return _cache_wire.stats(response)

    async def verify(self) -> CacheVerified:
        """Read everything on disk and remove what is damaged; takes as long as reading does.

        Raises:
            WorkersUnavailable: no worker of the decoder answers.
        """
        wire, request = self._wire, pb.VerifyRequest()
        response = await wire.retrying(
            lambda deadline: wire.unary(wire.caches.Verify, request, deadline, is_short=False)
        )
        return _cache_wire.verified(response)

    async def clear(self) -> CacheCleared:
        """Drop all that is kept of the caller's documents, but not the documents.

        Raises:
            WorkersUnavailable: a worker of the decoder does not answer.
        """
        wire, request = self._wire, pb.ClearRequest()
        response = await wire.retrying(
            lambda deadline: wire.unary(wire.caches.Clear, request, deadline, is_short=False)
        )
        return _cache_wire.cleared(response)
