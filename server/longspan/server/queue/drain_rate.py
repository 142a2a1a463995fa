"""How fast the queue drains."""

from __future__ import annotations

import math


class DrainRate:
    """Tokens a second, as an exponentially weighted average with one time constant.

    A quiet queue's rate decays to nothing; ``seconds_for`` bounds what that means.
    """

    def __init__(
        self, *, time_constant_s: float = 10.0, shortest_s: float = 0.1, longest_s: float = 60.0
    ) -> None:
        self._time_constant_s = time_constant_s
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self._rate = 0.0
        self._updated_s = 0.0

    def record(self, tokens: int, now: float) -> None:
        """Count tokens that left the queue at ``now``."""
        self._rate = self.tokens_per_s(now) + tokens / self._time_constant_s
        self._updated_s = now

    def tokens_per_s(self, now: float) -> float:
        """The rate at ``now``."""
        elapsed_s = max(0.0, now - self._updated_s)
        return self._rate * math.exp(-elapsed_s / self._time_constant_s)

    def seconds_for(self, tokens: int, now: float) -> float:
        """Seconds until ``tokens`` have drained, within the bounds given at the start."""
        rate = self.tokens_per_s(now)
        wait_s = tokens / rate if rate > 0.0 else self._longest_s
        return min(max(wait_s, self._shortest_s), self._longest_s)
