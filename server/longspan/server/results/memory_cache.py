"""An aiocache backend in memory that is bounded in bytes.

aiocache's ``SimpleMemoryCache`` bounds nothing: its dict grows until entries expire, each with a
timer of its own on the event loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from aiocache.base import BaseCache

from longspan.server.results.byte_lru import ByteLru
from longspan.server.results.serializer import RecordSerializer


class BoundedMemoryCache(BaseCache):  # type: ignore[misc]  # aiocache has no types
    """Gets, sets and deletes; no more is asked of it.

    Args:
        budget_bytes: names and serialised values together, with what holds them.
        ttl_s: seconds after which an entry is gone.
        clock: seconds that never go back.

    Attributes:
        entries: what is kept.
    """

    NAME = "bounded-memory"

    def __init__(
        self, budget_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # No timeout: nothing here waits.
        super().__init__(serializer=RecordSerializer(), ttl=ttl_s, timeout=None)
        self.entries = ByteLru(budget_bytes)
        self._clock = clock

    def _build_key(self, key: str, namespace: str | None = None) -> str:
        return key

    async def _get(self, key: str, encoding: object = None, _conn: object = None) -> bytes | None:
        return self.entries.get(key, self._clock())

    async def _set(
        self,
        key: str,
        value: bytes,
        ttl: float | None = None,
        _cas_token: object = None,
        _conn: object = None,
    ) -> bool:
        expires_s = math.inf if ttl is None else self._clock() + ttl
        return self.entries.put(key, value, expires_s)

    async def _delete(self, key: str, _conn: object = None) -> int:
        return int(self.entries.remove(key))

    async def _close(self, *args: Any, _conn: object = None, **kwargs: Any) -> None:
        """Nothing is open."""
