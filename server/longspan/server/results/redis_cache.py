"""aiocache's Redis backend over a client of our own: one server or a cluster, by URL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from aiocache import RedisCache
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from longspan.server.results.serializer import RecordSerializer

# What a Redis that is gone, or wrong, raises.
FAILURES = (RedisError, RedisClusterException, OSError)
CLUSTER = "+cluster"
CONNECTIONS = 32
SCAN_KEYS = 1000
PREFIX = "longspan:results:"

Client = Redis | RedisCluster


class RemoteCache(RedisCache):  # type: ignore[misc]  # aiocache has no types
    """Gets and sets records; nothing is tried twice and nothing waits longer than ``timeout_s``.

    Args:
        url: ``redis://``, ``rediss://``, ``redis+cluster://`` or ``rediss+cluster://``.
        ttl_s: seconds after which Redis drops an entry.
        timeout_s: for connecting, and for each answer.
    """

    def __init__(self, url: str, ttl_s: float, timeout_s: float) -> None:
        super().__init__(serializer=RecordSerializer(), ttl=ttl_s, timeout=None)
        self.client = client_of(url, timeout_s)

    def _build_key(self, key: str, namespace: str | None = None) -> str:
        return PREFIX + key

    async def remove_matching(self, pattern: str) -> int:
        """Delete the entries whose names match a pattern of Redis; returns how many.

        Reads all names that Redis holds, a thousand at a time.
        """
        removed = 0
        async for name in self._names(PREFIX + pattern):
            removed += await self.client.delete(name)
        return removed

    def _names(self, pattern: str) -> AsyncIterator[bytes]:
        scan: Callable[..., AsyncIterator[bytes]] = self.client.scan_iter
        return scan(match=pattern, count=SCAN_KEYS)

    async def _close(self, *args: Any, _conn: object = None, **kwargs: Any) -> None:
        # aiocache calls a name that redis-py has deprecated.
        await self.client.aclose()


def client_of(url: str, timeout_s: float) -> Client:
    """A client that connects when it is first used.

    Raises:
        ValueError: the URL is malformed.
    """
    patience: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
    scheme, _, rest = url.partition("://")
    if scheme.endswith(CLUSTER):
        plain = f"{scheme.removesuffix(CLUSTER)}://{rest}"
        return RedisCluster.from_url(plain, max_connections=CONNECTIONS, **patience)
    pool = BlockingConnectionPool.from_url(
        url, max_connections=CONNECTIONS, timeout=timeout_s, **patience
    )
    return Redis.from_pool(pool)
