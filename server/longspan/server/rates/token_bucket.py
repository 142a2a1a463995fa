"""A token bucket. Pure: time is passed in."""

from __future__ import annotations


class TokenBucket:
    """Fills at a steady rate up to its capacity; starts full.

    A clock that goes back counts as one that stands still.

    Args:
        rate_per_s: how many tokens come back in a second.
        capacity: how many it holds.
        now_s: the time of its making.

    Raises:
        ValueError: rate or capacity is not positive.
    """

    def __init__(self, rate_per_s: float, capacity: float, now_s: float) -> None:
        if not (rate_per_s > 0 and capacity > 0):
            raise ValueError("rate and capacity must be positive")
        self._rate_per_s = rate_per_s
        self._capacity = capacity
        self._level = capacity
        self._filled_s = now_s

    def take(self, amount: float, now_s: float) -> float:
        """Take tokens if there are enough; 0.0, or the seconds until there would be."""
        self._fill(now_s)
        if self._level >= amount:
            self._level -= amount
            return 0.0
        return (amount - self._level) / self._rate_per_s

    def owe(self, amount: float, now_s: float) -> float:
        """Take tokens, on credit if need be; the seconds until the debt is paid."""
        self._fill(now_s)
        self._level -= amount
        return max(0.0, -self._level / self._rate_per_s)

    def _fill(self, now_s: float) -> None:
        elapsed_s = max(0.0, now_s - self._filled_s)
        self._filled_s = max(self._filled_s, now_s)
        self._level = min(self._capacity, self._level + elapsed_s * self._rate_per_s)
