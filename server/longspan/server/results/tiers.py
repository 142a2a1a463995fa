"""Both levels as one: the quicker one first, and what the slower one has goes up."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.server.identity import Tenant
from longspan.server.results.disk_level import DiskLevel
from longspan.server.results.first_level import FirstLevel, Owner, RedisLevel
from longspan.server.results.levels import Level
from longspan.server.results.record import Record


@dataclass(frozen=True, slots=True)
class Found:
    """An answer given before."""

    record: Record
    level: Level


class Tiers:
    """Never fails: a level in trouble has nothing.

    Args:
        first: None where nothing is kept in memory.
        disk: None where nothing is kept on disk.
    """

    def __init__(self, first: FirstLevel | None, disk: DiskLevel | None) -> None:
        self.first = first
        self.disk = disk

    async def find(self, key: bytes, owner: Owner) -> Found | None:
        """The answer of a request, if it was kept."""
        if self.first is not None:
            record = await self.first.get(key, owner)
            if record is not None:
                return Found(record, self.first.level)
        record = None if self.disk is None else await self.disk.get(key)
        if record is None:
            return None
        if self.first is not None:
            await self.first.put(record, owner)
        return Found(record, Level.DISK)

    async def put(self, record: Record, owner: Owner) -> None:
        """Keep an answer on both levels."""
        if self.first is not None:
            await self.first.put(record, owner)
        if self.disk is not None:
            await self.disk.put(record, owner)

    @property
    def remote(self) -> RedisLevel | None:
        """The level that takes long to remove from, if it is there."""
        return self.first if isinstance(self.first, RedisLevel) else None

    async def remove(self, tenant: Tenant | None, document: str = "") -> int:
        """Drop the answers about a document, of a tenant, or all, but for those elsewhere.

        Returns how many there were on the level that had more.
        """
        here = (None if self.remote else self.first, self.disk)
        removed = [await one.remove(tenant, document) for one in here if one]
        return max(removed, default=0)

    async def close(self) -> None:
        """Let go of both."""
        for one in (self.first, self.disk):
            if one is not None:
                await one.close()
