"""Keeps callers away from something that is broken or slow. Pure: time is passed in."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum, auto


class State(Enum):
    """Whether operations may begin."""

    CLOSED = auto()  # all
    OPEN = auto()  # none
    HALF_OPEN = auto()  # one, the probe


class Event(Enum):
    """What moves a breaker."""

    GOOD = auto()  # an operation went well
    BAD = auto()  # one failed or was slow
    LAST_STRAW = auto()  # one more, and that is as many as are borne
    PAUSE_OVER = auto()  # somebody asks after the pause


TRANSITIONS = {
    (State.CLOSED, Event.GOOD): State.CLOSED,
    (State.CLOSED, Event.BAD): State.CLOSED,
    (State.CLOSED, Event.LAST_STRAW): State.OPEN,
    (State.OPEN, Event.PAUSE_OVER): State.HALF_OPEN,
    (State.HALF_OPEN, Event.GOOD): State.CLOSED,
    (State.HALF_OPEN, Event.BAD): State.OPEN,
    (State.HALF_OPEN, Event.PAUSE_OVER): State.HALF_OPEN,  # the probe never came back
}


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When a breaker opens, and for how long.

    Attributes:
        failures: so many in a row open it.
        slow_s: an operation that takes longer counts as failed.
        pause_s: from opening to the first probe; doubled after each probe that fails.
        longest_pause_s: but never longer.
    """

    failures: int = 5
    slow_s: float = 1.0
    pause_s: float = 1.0
    longest_pause_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to begin one operation, whose end is to be reported."""

    period: int
    started_s: float


class Breaker:
    """Lets operations begin, or not; safe to use from any thread.

    Times are seconds of one clock that never goes back.
    """

    def __init__(self, limits: BreakerLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._state = State.CLOSED
        # Counts the changes of state. What began in an earlier period says nothing of this one.
        self._period = 0
        self._failures = 0
        self._pause_s = limits.pause_s
        self._until_s = 0.0

    @property
    def state(self) -> State:
        """The state; OPEN also after the pause, until somebody asks."""
        return self._state

    def refuses(self, now: float) -> bool:
        """Whether ``admit`` would refuse; nothing is begun."""
        return self._state is not State.CLOSED and now < self._until_s

    def admit(self, now: float) -> Permit | None:
        """Leave to begin an operation; None is a refusal."""
        with self._lock:
            if self._state is not State.CLOSED:
                if now < self._until_s:
                    return None
                self._move(Event.PAUSE_OVER)
                self._until_s = now + self._pause_s
            return Permit(self._period, now)

    def succeeded(self, permit: Permit, now: float) -> None:
        """An operation ended well, if it was not slow."""
        if now - permit.started_s > self._limits.slow_s:
            return self.failed(permit, now)
        with self._lock:
            if permit.period == self._period:
                self._failures = 0
                self._pause_s = self._limits.pause_s
                self._move(Event.GOOD)

    def ended(self, permit: Permit, now: float) -> None:
        """An operation ended that had nothing to do, and tells nothing, if it was not slow.

        A probe of that kind is followed by the next operation.
        """
        if now - permit.started_s > self._limits.slow_s:
            return self.failed(permit, now)
        with self._lock:
            if permit.period == self._period and self._state is State.HALF_OPEN:
                self._until_s = now

    def failed(self, permit: Permit, now: float) -> None:
        """An operation failed."""
        with self._lock:
            if permit.period != self._period:
                return
            if self._state is State.HALF_OPEN:
                self._pause_s = min(2 * self._pause_s, self._limits.longest_pause_s)
                self._move(Event.BAD)
            else:
                self._failures += 1
                enough = self._failures >= self._limits.failures
                self._move(Event.LAST_STRAW if enough else Event.BAD)
            if self._state is State.OPEN:
                self._failures = 0
                self._until_s = now + self._pause_s

    def _move(self, event: Event) -> None:
        state = TRANSITIONS[self._state, event]
        if (self._state, event) not in _WITHIN_A_PERIOD:
            self._period += 1
        self._state = state


# A new probe is a new period, although the state stays.
_WITHIN_A_PERIOD = {(State.CLOSED, Event.GOOD), (State.CLOSED, Event.BAD)}
