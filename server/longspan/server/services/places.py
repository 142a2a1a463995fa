"""The server's places for calls that do no work: none of its callers may hold them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from longspan.server.errors import QueueFull
from longspan.server.identity import Tenant

RETRY_S = 1.0
STRANGERS = 64
"""Of all callers without a credential together."""


class Places:
    """Counts the calls of each caller whose message has not come, or that watch for changes.

    gRPC counts every call among those that it takes at once, and refuses everybody's beyond that.

    Args:
        each: at most so many of one tenant.
    """

    def __init__(self, each: int) -> None:
        self._each = each
        self._held: Counter[Tenant | None] = Counter()

    @contextmanager
    def held(self, tenant: Tenant | None) -> Iterator[None]:
        """Hold a place for the length of the block; None is anybody.

        Raises:
            QueueFull: the caller holds as many as it may.
        """
        at_most = STRANGERS if tenant is None else self._each
        if self._held[tenant] >= at_most:
            raise QueueFull(
                f"{at_most} such calls have sent no message, or watch; no more are taken",
                retry_after_s=RETRY_S,
            )
        self._held[tenant] += 1
        try:
            yield
        finally:
            self._held[tenant] -= 1
            if not self._held[tenant]:
                del self._held[tenant]
