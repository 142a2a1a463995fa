"""The server's places for calls that do no work: none of its callers may hold them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from longspan.server.errors import QueueFull, RateLimited
from longspan.server.identity import Tenant
from longspan.server.limits import Limits

RETRY_S = 1.0
STRANGERS = 64
"""At most, of all callers without a credential together."""


class Places:
    """Counts calls whose message has not come, whose answer is not taken, or that only watch.

    gRPC counts every call among those that it takes at once, and refuses everybody's beyond that;
    who is admitted is counted there. Of one tenant as many may wait as it may have admitted, and
    watch as a quarter of what the server admits: every connection of a client may watch. Of all
    together there may be twice as many as the server admits.
    """

    def __init__(self, limits: Limits) -> None:
        self._each = min(limits.requests, limits.tenant_requests or limits.requests)
        self._watchers = max(1, limits.requests // 4)
        self._strangers = min(STRANGERS, limits.requests)
        self._together = 2 * limits.requests
        self._held: Counter[tuple[Tenant | None, bool]] = Counter()

    @contextmanager
    def held(self, tenant: Tenant | None, *, watching: bool = False) -> Iterator[None]:
        """Hold a place for the length of the block; no tenant is anybody.

        Raises:
            RateLimited: the caller holds as many as it may.
            QueueFull: all callers together do.
        """
        at_most = self._watchers if watching else self._each
        if tenant is None:
            at_most = self._strangers
        holder = tenant, watching
        if self._held[holder] >= at_most:
            doing = "watch" if watching else "have sent no message, or do not take their answer"
            raise RateLimited(f"{at_most} calls {doing}", retry_after_s=RETRY_S)
        if self._held.total() >= self._together:
            raise QueueFull(f"{self._together} such calls", retry_after_s=RETRY_S)
        self._held[holder] += 1
        try:
            yield
        finally:
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]
