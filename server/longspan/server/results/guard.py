"""Something that may be slow or gone, behind a timeout and a circuit breaker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from longspan.blobstore.breaker import Breaker, BreakerLimits, State

T = TypeVar("T")


class Guard:
    """While the breaker is open nobody waits.

    Args:
        limits: when the breaker opens; what takes longer than ``slow_s`` is given up.
        failures: the exceptions that mean failure; others are raised.
    """

    def __init__(self, limits: BreakerLimits, failures: tuple[type[Exception], ...]) -> None:
        self._breaker = Breaker(limits)
        self._timeout_s = limits.slow_s
        self._failures: tuple[type[Exception], ...] = (*failures, TimeoutError)

    @property
    def state(self) -> State:
        """The breaker's state."""
        return self._breaker.state

    async def run(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """The call's result; None when it failed, took too long or was not tried."""
        permit = self._breaker.admit(time.monotonic())
        if permit is None:
            return None
        # A caller that is cancelled says nothing about the other side: no report.
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await call()
        except self._failures:
            self._breaker.failed(permit, time.monotonic())
            return None
        self._breaker.succeeded(permit, time.monotonic())
        return result
