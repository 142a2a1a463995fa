"""Tells one caller an answer once, although it may come from its beginning again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from longspan.server.results.flight import Flight, State
from longspan.server.results.record import KINDS
from longspan.server.services.wire import Outgoing
from longspan.v1 import inference_service_pb2 as pb

_TEXTS = ("delta", "reasoning")


class Delivery:
    """An ``Outgoing`` that drops what the caller has been told.

    Equal requests have equal answers, so it is enough to count: characters of texts, whose pieces
    may be cut differently the next time, and other events.

    Args:
        outbox: leads to the caller.
        noticed: called before the first event of the answer.
    """

    def __init__(self, outbox: Outgoing, noticed: Callable[[], None]) -> None:
        self._outbox = outbox
        self._noticed = noticed
        self._told: Counter[str] = Counter()
        self._again: Counter[str] = Counter()

    def restart(self) -> None:
        """The answer comes from its beginning."""
        self._again = Counter()

    async def follow(self, flight: Flight) -> bool:
        """Tell a flight as it grows, but for its last event; False when it ended without one."""
        async for event in flight.events():
            kind = event.WhichOneof("event")
            assert kind is not None
            await self.send(**{kind: getattr(event, kind)})
        return flight.state is State.COMPLETED

    async def send(self, **event: Any) -> None:
        """Pass on what is new of one event."""
        for kind, message in event.items():
            if kind not in KINDS or kind == "completed":
                await self._outbox.send(**{kind: message})
            elif (fresh := self._fresh(kind, message)) is not None:
                self._noticed()
                await self._outbox.send(**{kind: fresh})

    def _fresh(self, kind: str, message: Message) -> Message | None:
        if kind not in _TEXTS:
            return message if self._advance(kind, 1) else None
        assert isinstance(message, pb.TextDelta | pb.ReasoningDelta)
        new = self._advance(kind, len(message.text))
        if new == len(message.text):
            return message
        return type(message)(text=message.text[len(message.text) - new :]) if new else None

    def _advance(self, kind: str, count: int) -> int:
        """How much of ``count`` is new."""
        self._again[kind] += count
        new = max(0, self._again[kind] - self._told[kind])
        self._told[kind] = max(self._told[kind], self._again[kind])
        return min(new, count)
