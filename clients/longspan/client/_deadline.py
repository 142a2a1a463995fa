"""When a call must end."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.client._exceptions import DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock, or None for never."""

    at_s: float | None
    total_s: float | None

    @classmethod
    def after(cls, total_s: float | None, now_s: float) -> Deadline:
        """``total_s`` seconds from now."""
        return cls(None if total_s is None else now_s + total_s, total_s)

    def remaining_s(self, now_s: float) -> float | None:
        """Seconds left; None for no end.

        Raises:
            DeadlineExceeded: none.
        """
        if self.at_s is None:
            return None
        if now_s >= self.at_s:
            raise DeadlineExceeded(f"not finished after {self.total_s:g} s")
        return self.at_s - now_s
