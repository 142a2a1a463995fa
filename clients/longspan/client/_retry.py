"""Decides whether and when a failed attempt is followed by another."""

from __future__ import annotations

from longspan.client._config import RetryPolicy
from longspan.client._exceptions import (
    ConnectionLost,
    LongspanError,
    QueueFull,
    RateLimited,
    ServerUnavailable,
    Unavailable,
    UploadBusy,
    UploadIncomplete,
    UploadMissing,
)

_PASSING = (
    ConnectionLost,
    QueueFull,
    RateLimited,
    Unavailable,
    UploadBusy,
    UploadIncomplete,
    UploadMissing,
)


class Patience:
    """The tries of one call; pure: the caller passes clock and jitter in."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._first_failure_s = 0.0
        self._contacts = 0

    def progressed(self) -> None:
        """The server answered with something new."""
        self._contacts += 1
        self._failures = 0

    def delay_s(self, error: LongspanError, now_s: float, *, jitter: float) -> float:
        """Seconds to wait before the next try.

        Args:
            jitter: from [0, 1); spreads the tries of many clients.

        Raises:
            LongspanError: ``error`` itself, when there is no point in another try.
        """
        if not self._may_pass(error):
            raise error
        if not self._failures:
            self._first_failure_s = now_s
        self._failures += 1
        delay_s = self._pause_s(error, jitter)
        spent_s = now_s - self._first_failure_s
        if self._failures >= self._policy.attempts or spent_s + delay_s > self._policy.budget_s:
            raise error
        return delay_s

    def _may_pass(self, error: LongspanError) -> bool:
        if isinstance(error, _PASSING):
            return True
        # A server that never answered was given the time to connect already.
        return isinstance(error, ServerUnavailable) and self._contacts > 0

    def _pause_s(self, error: LongspanError, jitter: float) -> float:
        policy = self._policy
        doubled_s: float = policy.backoff_s * 2 ** min(self._failures - 1, 32)
        backoff_s = min(doubled_s, policy.max_backoff_s) * (0.5 + jitter / 2)
        return max(error.retry_after_s or 0.0, backoff_s)
