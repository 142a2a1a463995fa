"""The answers that are being made, by key: equal requests at once are one."""

from __future__ import annotations

from longspan.server.results.flight import Flight, State


class Flights:
    """As many as there are requests at most; each is bounded by ``limit_bytes``.

    Attributes:
        joins: requests that followed another one.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._flights: dict[bytes, Flight] = {}
        self.joins = 0

    def __len__(self) -> int:
        return len(self._flights)

    def join(self, key: bytes) -> tuple[Flight, bool]:
        """The flight of a key, and whether the caller is to make its answer.

        A complete one is found until it is kept elsewhere.
        """
        flight = self._flights.get(key)
        if flight is not None and flight.state in (State.OPEN, State.COMPLETED):
            flight.followers += 1
            self.joins += 1
            return flight, False
        flight = self._flights[key] = Flight(key, self._limit_bytes)
        return flight, True

    def alone(self, key: bytes) -> Flight:
        """A flight that nobody else finds, until ``show`` shows it."""
        return Flight(key, self._limit_bytes)

    def show(self, flight: Flight) -> bool:
        """Let others find a flight; False where there is one of its key."""
        return self._flights.setdefault(flight.key, flight) is flight

    def land(self, flight: Flight) -> None:
        """A flight has ended, and its answer is kept or lost."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
