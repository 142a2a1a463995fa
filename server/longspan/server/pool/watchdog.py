"""When a worker that still runs counts as dead. Pure: time is passed in."""

from __future__ import annotations

from longspan.server.pool.lifecycle import DeathCause


class Watchdog:
    """Judges one worker process by its heartbeats.

    ``tick`` is to be called every ``interval_s``. A tick that comes late means that the
    server itself stood still and has heartbeats unread, so the lateness is not held
    against the worker.
    """

    def __init__(
        self,
        *,
        start_timeout_s: float,
        heartbeat_timeout_s: float,
        step_timeout_s: float,
        now: float,
    ) -> None:
        self.interval_s = heartbeat_timeout_s / 6
        self._start_timeout_s = start_timeout_s
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._step_timeout_s = step_timeout_s
        self._started_s = now
        self._ticked_s = now
        self._heard_s: float | None = None
        self._busy_since_s: float | None = None
        self._step = -1

    def ready(self, now: float) -> None:
        """The worker is ready: heartbeats are due from now on."""
        self._heard_s = now

    def heard(self, now: float, *, step: int, busy: bool) -> None:
        """A heartbeat came."""
        self._heard_s = now
        if not busy:
            self._busy_since_s = None
        elif self._busy_since_s is None or step != self._step:
            self._busy_since_s = now
        self._step = step

    def tick(self, now: float) -> DeathCause | None:
        """The verdict at ``now``; None while the worker may live."""
        self._forgive(max(0.0, now - self._ticked_s - 2 * self.interval_s))
        self._ticked_s = now
        if self._heard_s is None:
            late = now - self._started_s > self._start_timeout_s
            return DeathCause.START_TIMEOUT if late else None
        if now - self._heard_s > self._heartbeat_timeout_s:
            return DeathCause.SILENT
        if self._busy_since_s is not None and now - self._busy_since_s > self._step_timeout_s:
            return DeathCause.HUNG
        return None

    def _forgive(self, late_s: float) -> None:
        self._started_s += late_s
        if self._heard_s is not None:
            self._heard_s += late_s
        if self._busy_since_s is not None:
            self._busy_since_s += late_s
