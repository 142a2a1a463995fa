"""One call's two directions, with bounds on both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import grpc

from longspan.server.current_call import current_call
from longspan.server.errors import DeadlineExceeded, InvalidRequest, UploadBusy
from longspan.server.tracing.answers import note_completed, note_stored
from longspan.server.upload.desk import Hold

Request = TypeVar("Request")
Context = grpc.aio.ServicerContext[Any, Any]
# A client that has one of them may hang up.
LAST_EVENTS = frozenset({"completed", "stored"})


class Malformed:
    """Stands for bytes from a client that are no message."""


def malformed() -> InvalidRequest:
    """The error for such bytes."""
    return InvalidRequest("not a message of this API", field="message")


def _lost() -> UploadBusy:
    return UploadBusy("a newer stream sends this upload")


def _end(limit: asyncio.Timeout) -> None:
    if not limit.expired():
        limit.reschedule(0.0)


def _nothing() -> None:
    return


class Inbox(Generic[Request]):
    """Reads the client's messages, never waiting for ever."""

    def __init__(self, context: Context, request: type[Request], *, wait_s: float) -> None:
        self._context = context
        self._type = request
        self._wait_s = wait_s

    async def read(self, hold: Hold | None = None) -> Request | None:
        """The next message; None when the client sends no more, or is gone.

        Args:
            hold: its loss ends the wait.

        Raises:
            DeadlineExceeded: nothing came for too long.
        """
        try:
            async with asyncio.timeout(self._wait_s) as limit:
                if hold is not None:
                    # No task waits for it: thousands of streams may be waiting here.
                    hold.on_loss = partial(_end, limit)
                message = await self._context.read()
        except TimeoutError as error:
            raise DeadlineExceeded(f"nothing was sent for {self._wait_s:g} s") from error
        if isinstance(message, Malformed):
            raise malformed()
        return message if isinstance(message, self._type) else None

    async def read_unless_lost(self, hold: Hold) -> Request | None:
        """Like ``read``, but give way to a newer stream of the same upload.

        Raises:
            UploadBusy: the newer stream is there.
        """
        if hold.lost:
            raise _lost()
        try:
            return await self.read(hold)
        except DeadlineExceeded as error:
            if hold.lost:
                raise _lost() from error
            raise
        finally:
            hold.on_loss = _nothing


class Outgoing(Protocol):
    """Where the events of one call go."""

    async def send(self, **event: Any) -> None:
        """Take one event, as in ``send(ack=...)``."""
        ...


class Outbox:
    """Writes events one at a time, whoever sends them.

    Args:
        context: the call.
        response: the response message; each kind of event is one of its fields.
    """

    def __init__(self, context: Context, response: Callable[..., Any]) -> None:
        self._context = context
        self._response = response
        self._lock = asyncio.Lock()

    async def send(self, **event: Any) -> None:
        """Send one event, as in ``send(ack=...)``; waits while the client does not read."""
        if "completed" in event:
            note_completed(event["completed"])
        elif "stored" in event:
            note_stored(event["stored"].document)
        async with self._lock:
            await self._context.write(self._response(**event))
        if (call := current_call()) is not None and not LAST_EVENTS.isdisjoint(event):
            call.complete = True
