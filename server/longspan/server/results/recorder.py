"""An ``Outgoing`` that writes an answer into a flight."""

from __future__ import annotations

import time
from typing import Any

from longspan.server.results.flight import Flight
from longspan.server.results.record import KINDS
from longspan.server.services.wire import Outgoing
from longspan.v1 import inference_service_pb2 as pb


class Recorder:
    """Events of the answer go into the flight, others to the caller at once.

    Nobody's slow reading holds up the answer: a flight is bounded by itself.
    """

    def __init__(self, flight: Flight, outbox: Outgoing) -> None:
        self._flight = flight
        self._outbox: Outgoing | None = outbox

    def close(self) -> None:
        """The caller is gone; the answer goes on for others."""
        self._outbox = None

    async def send(self, **event: Any) -> None:
        """Take one event.

        Raises:
            AnswerTooLarge: the flight has ended.
        """
        for kind, message in event.items():
            if kind == "completed":
                self._flight.complete(message, time.time())
            elif kind in KINDS:
                self._flight.say(pb.GenerateResponse(**event))
            elif self._outbox is not None:
                await self._outbox.send(**{kind: message})
