"""One answer while it is being made, for everybody who has asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from enum import Enum, auto

from longspan.server.aio import cancel_and_wait
from longspan.server.results.levels import Level
from longspan.server.results.record import Record, record_of
from longspan.v1 import inference_service_pb2 as pb


class State(Enum):
    """Whether more is to come."""

    OPEN = auto()
    COMPLETED = auto()
    # Whoever made it failed, or went away: somebody else has to.
    ABANDONED = auto()
    # It is longer than what is kept in common: everybody makes it alone.
    TOO_LARGE = auto()


class Event(Enum):
    """What can happen to an answer."""

    SAID = auto()
    OVERFLOWED = auto()
    COMPLETED = auto()
    ABANDONED = auto()


TRANSITIONS = {
    (State.OPEN, Event.SAID): State.OPEN,
    (State.OPEN, Event.OVERFLOWED): State.TOO_LARGE,
    (State.OPEN, Event.COMPLETED): State.COMPLETED,
    (State.OPEN, Event.ABANDONED): State.ABANDONED,
}


class AnswerTooLarge(Exception):
    """The answer is longer than a flight takes."""


class Flight:
    """Grows at one end; any number of followers read it from the beginning.

    Args:
        key: of the request.
        lane: of those who share it.
        limit_bytes: what the events may take.

    Attributes:
        state: whether more is to come.
        found: the level that the answer was found on; None where it is made.
        callers: those who are told it now.
    """

    def __init__(self, key: bytes, lane: int, limit_bytes: int) -> None:
        self.key = key
        self.lane = lane
        self.state = State.OPEN
        self.found: Level | None = None
        self.callers = 0
        self._work: asyncio.Task[None] | None = None
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._said: list[pb.GenerateResponse] = []
        self._completed: pb.Completed | None = None
        self._created_s = 0.0
        self._changed = asyncio.Event()

    @property
    def completed(self) -> pb.Completed:
        """The end, as it was for the leader."""
        assert self._completed is not None, "the answer is not complete"
        return self._completed

    @property
    def created_s(self) -> float:
        """When the answer was complete, in seconds since the epoch."""
        return self._created_s

    def say(self, event: pb.GenerateResponse) -> None:
        """The next event of the answer.

        Raises:
            AnswerTooLarge: it goes beyond the limit; the flight ends.
        """
        self._size_bytes += event.ByteSize()
        if self._size_bytes > self._limit_bytes:
            self._move(Event.OVERFLOWED)
            raise AnswerTooLarge
        self._move(Event.SAID)
        self._said.append(event)

    def complete(self, completed: pb.Completed, created_s: float) -> None:
        """The last event."""
        self._move(Event.COMPLETED)
        self._completed = completed
        self._created_s = created_s

    def abandon(self) -> None:
        """Nobody makes it any more; nothing happens where it has ended."""
        if self.state is State.OPEN:
            self._move(Event.ABANDONED)

    def replay(self, record: Record, level: Level) -> None:
        """All of an answer that was found."""
        self._move(Event.COMPLETED)
        self._said = list(record.said)
        self._completed = record.completed
        self._created_s = record.created_s
        self.found = level

    def record(self) -> Record:
        """A complete answer as it is kept."""
        return record_of(self.key, self._created_s, self._said, self.completed)

    async def events(self) -> AsyncIterator[pb.GenerateResponse]:
        """What has been said and what is said, but for the last event; ends with the flight."""
        place = 0
        while True:
            while place < len(self._said):
                yield self._said[place]
                place += 1
            if self.state is not State.OPEN:
                return
            await self._changed.wait()

    def begin(self, work: Coroutine[object, object, None]) -> None:
        """Start what makes the answer."""
        self._work = asyncio.create_task(work)
        # Its error is for the leader, who may be gone.
        self._work.add_done_callback(_retrieve)

    async def work_done(self) -> None:
        """Raise the error that ended the work."""
        assert self._work is not None
        await self._work

    async def stop(self) -> None:
        """Stop the work, as nobody listens; one that has ended is left to be kept."""
        if self.state is State.OPEN and self._work is not None and not self._work.done():
            await cancel_and_wait(self._work)
        # A task that is cancelled before it runs has no part in it.
        self.abandon()

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]
        self._changed.set()
        # Those who wait hold the old one.
        self._changed = asyncio.Event()


def _retrieve(work: asyncio.Task[None]) -> None:
    if not work.cancelled():
        work.exception()
