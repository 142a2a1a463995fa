"""How long to wait before the next restart."""

from __future__ import annotations


class Backoff:
    """Exponential delays that start over after a healthy life. Pure: time is passed in."""

    def __init__(
        self, *, first_s: float = 0.1, longest_s: float = 10.0, healthy_s: float = 30.0
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._healthy_s = healthy_s
        self._next_s = first_s

    def delay_s(self, lived_s: float) -> float:
        """Seconds to wait after a process that lived ``lived_s``; doubles each time."""
        if lived_s >= self._healthy_s:
            self._next_s = self._first_s
        delay_s = self._next_s
        self._next_s = min(2 * delay_s, self._longest_s)
        return delay_s
