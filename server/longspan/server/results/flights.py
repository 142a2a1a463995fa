"""The answers that are being made, by key: equal requests at once are one."""

from __future__ import annotations

from longspan.server.results.flight import Flight, State


class Flights:
    """As many as there are requests at most; each is bounded by ``limit_bytes``."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._flights: dict[tuple[bytes, int], Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def join(self, key: bytes, lane: int) -> tuple[Flight, bool]:
        """The flight of a key, and whether the caller is to make its answer.

        A complete one is found until it is kept elsewhere. ``leave`` must follow.
        """
        flight = self._flights.get((key, lane))
        leads = flight is None or flight.state not in (State.OPEN, State.COMPLETED)
        if flight is None or leads:
            flight = self._flights[key, lane] = self.alone(key, lane)
        flight.callers += 1
        return flight, leads

    def leave(self, flight: Flight) -> bool:
        """A caller is told no more; whether it was the last."""
        flight.callers -= 1
        if flight.callers == 0 and flight.state is State.OPEN:
            # Nobody joins what is about to be stopped.
            self.land(flight)
        return flight.callers == 0

    def alone(self, key: bytes, lane: int) -> Flight:
        """A flight that nobody else finds, until ``show`` shows it."""
        return Flight(key, lane, self._limit_bytes)

    def show(self, flight: Flight) -> bool:
        """Let others find a flight; False where there is one of its key."""
        return self._flights.setdefault((flight.key, flight.lane), flight) is flight

    def land(self, flight: Flight) -> None:
        """A flight has ended, and its answer is kept or lost."""
        if self._flights.get((flight.key, flight.lane)) is flight:
            del self._flights[flight.key, flight.lane]
