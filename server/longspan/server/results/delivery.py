"""Tells one caller an answer once, although it may come from its beginning again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from longspan.server.results.flight import Flight, State
from longspan.server.results.record import KINDS
from longspan.server.results.told import ToldItems, ToldText
from longspan.server.services.wire import Outgoing
from longspan.v1 import inference_service_pb2 as pb


class Delivery:
    """An ``Outgoing`` that drops what the caller has been told.

    Equal requests have equal answers, but only up to rounding: another batch may tip a choice
    between two tokens. So what comes again is compared with what was told, and two answers are
    never mixed.

    Args:
        outbox: leads to the caller.
        noticed: called before each event of the answer.
    """

    def __init__(self, outbox: Outgoing, noticed: Callable[[], None]) -> None:
        self._outbox = outbox
        self._noticed = noticed
        self._texts = {"delta": ToldText(), "reasoning": ToldText()}
        self._items = {"citation": ToldItems(), "unverified": ToldItems()}

    def restart(self) -> None:
        """The answer comes from its beginning."""
        for text in self._texts.values():
            text.restart()
        for items in self._items.values():
            items.restart()

    async def follow(self, flight: Flight) -> bool:
        """Tell a flight as it grows, but for its last event; False when it ended without one.

        Raises:
            GenerationFailed: it differs from what the caller has been told.
        """
        async for event in flight.events():
            kind = event.WhichOneof("event")
            assert kind is not None
            await self.send(**{kind: getattr(event, kind)})
        if flight.state is not State.COMPLETED:
            return False
        self._end()
        return True

    async def send(self, **event: Any) -> None:
        """Pass on what is new of one event.

        Raises:
            GenerationFailed: as ``follow`` does.
        """
        for kind, message in event.items():
            if kind == "completed":
                self._end()
            if kind not in KINDS or kind == "completed":
                await self._outbox.send(**{kind: message})
            elif (fresh := self._fresh(kind, message)) is not None:
                self._noticed()
                await self._outbox.send(**{kind: fresh})

    def _end(self) -> None:
        """The caller must not have been told more than the answer is."""
        for text in self._texts.values():
            text.end()
        for items in self._items.values():
            items.end()

    def _fresh(self, kind: str, message: Message) -> Message | None:
        match message:
            case pb.TextDelta() | pb.ReasoningDelta():
                text = self._texts[kind].admit(message.text)
                return type(message)(text=text) if text else None
            case pb.Citation():
                # The score may differ in its last bits.
                place = (message.document_id, message.span.start, message.span.end)
                return message if self._items[kind].admit(place) else None
        return message if self._items[kind].admit(message.SerializeToString()) else None
