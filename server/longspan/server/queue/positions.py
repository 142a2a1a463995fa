"""Queue positions for progress reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from longspan.server.queue.job import RequestId


class Positions:
    """Jobs ahead of each request's first one.

    Ordering the whole queue costs O(jobs), and every running request asks once a second,
    so all of them share one order for ``ttl_s``.
    """

    def __init__(self, order: Callable[[], Iterable[RequestId]], *, ttl_s: float = 0.25) -> None:
        self._order = order
        self._ttl_s = ttl_s
        self._until_s = float("-inf")
        self._ahead: dict[RequestId, int] = {}

    def of(self, request_id: RequestId, now: float) -> int | None:
        """Jobs ahead of a request that waits; exact when it was not known before."""
        if now >= self._until_s or request_id not in self._ahead:
            self._until_s = now + self._ttl_s
            self._ahead = {}
            for ahead, waiting in enumerate(self._order()):
                self._ahead.setdefault(waiting, ahead)
        return self._ahead.get(request_id)
