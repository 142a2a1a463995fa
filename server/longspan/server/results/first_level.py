"""Level 1: recent answers, in this server's memory or in a Redis that servers share."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from longspan.blobstore.breaker import BreakerLimits, State
from longspan.server.identity import Tenant, tenant_folder
from longspan.server.results.guard import Guard
from longspan.server.results.levels import Level
from longspan.server.results.memory_cache import BoundedMemoryCache
from longspan.server.results.record import Record
from longspan.server.results.redis_cache import FAILURES, RemoteCache

# For removing, which reads all names.
REMOVING_S = 30.0
CLOSING_S = 1.0
CONNECTING_S = 2.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose an answer is.

    Attributes:
        subject: ids of its documents, with commas between them.
    """

    tenant: Tenant
    subject: str


class MemoryLevel:
    """Answers in memory, least recently used out first."""

    level = Level.MEMORY

    def __init__(self, budget_bytes: int, ttl_s: float) -> None:
        self._cache = BoundedMemoryCache(budget_bytes, ttl_s)

    @property
    def size_bytes(self) -> int:
        """What they take."""
        return self._cache.entries.bytes

    @property
    def breaker(self) -> State | None:
        """There is none."""
        return None

    async def get(self, key: bytes, owner: Owner) -> Record | None:
        """An answer, if it is here."""
        found: Record | None = await self._cache.get(_name(key, owner))
        return found

    async def put(self, record: Record, owner: Owner) -> None:
        """Keep an answer."""
        await self._cache.set(_name(record.key, owner), record)

    async def remove(self, tenant: Tenant | None, document: str = "") -> int:
        """Drop the answers about a document, of a tenant, or all; returns how many."""
        start = "" if tenant is None else f"{tenant_folder(tenant)}:"
        entries = self._cache.entries
        named = [name for name in entries if name.startswith(start) and document in name]
        return sum(entries.remove(name) for name in named)

    async def close(self) -> None:
        """Nothing is open."""


class RedisLevel:
    """Answers in Redis: one that fails, or is slow, is a miss."""

    level = Level.REDIS

    def __init__(self, url: str, ttl_s: float, limits: BreakerLimits) -> None:
        self._cache = RemoteCache(url, ttl_s, limits.slow_s)
        self._guard = Guard(limits, FAILURES)

    async def connect(self) -> bool:
        """Find the Redis, or all nodes of the cluster, with more patience than a request has."""
        with suppress(*FAILURES, TimeoutError):
            async with asyncio.timeout(CONNECTING_S):
                await self._cache.client.ping()
                return True
        return False

    @property
    def size_bytes(self) -> int:
        """Not known here: Redis has a bound of its own."""
        return 0

    @property
    def breaker(self) -> State | None:
        """The state of its breaker."""
        return self._guard.state

    async def get(self, key: bytes, owner: Owner) -> Record | None:
        """An answer, if Redis has it and says so in time."""
        found: Record | None = await self._guard.run(lambda: self._cache.get(_name(key, owner)))
        return found if found is not None and found.key == key else None

    async def put(self, record: Record, owner: Owner) -> None:
        """Keep an answer, if Redis takes it in time."""
        await self._guard.run(lambda: self._cache.set(_name(record.key, owner), record))

    async def remove(self, tenant: Tenant | None, document: str = "") -> int:
        """As ``MemoryLevel`` does; what Redis does not remove now, it drops after their time."""
        start = "*" if tenant is None else f"{tenant_folder(tenant)}:*"
        if self._guard.state is not State.CLOSED:
            return 0
        try:
            async with asyncio.timeout(REMOVING_S):
                return await self._cache.remove_matching(f"{start}{document}*")
        except (*FAILURES, TimeoutError):
            return 0

    async def close(self) -> None:
        """Disconnect, also from a Redis that does not answer."""
        with suppress(*FAILURES, TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await self._cache.close()


FirstLevel = MemoryLevel | RedisLevel


def _name(key: bytes, owner: Owner) -> str:
    """A tenant's entries begin alike; the documents stand in the name, to be found by."""
    return f"{tenant_folder(owner.tenant)}:{owner.subject}:{key.hex()}"
