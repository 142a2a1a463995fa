"""The way back of one stream, shared by the event loop and the engine's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import TypeAlias

import grpc

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.events import responses

Context: TypeAlias = "grpc.aio.ServicerContext[pb.ExecuteRequest, pb.ExecuteResponse]"


class WireClosed(Exception):
    """The stream is over; nobody will read what is sent."""


class Wire:
    """Writes events in order, one message at a time; every send waits for its turn.

    Nothing is queued beyond the callers that wait: a slow reader slows the engine down.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._from_engine: Future[None] | None = None
        self._closed = False

    async def send(self, events: Sequence[pb.Event]) -> None:
        """Write events; return when the transport has them.

        Raises:
            WireClosed: the stream is over.
        """
        async with self._turn:
            for response in responses(events):
                await self._write(response)

    def send_from_engine(self, events: Sequence[pb.Event]) -> None:
        """``send`` for the engine's thread, which it blocks.

        Raises:
            WireClosed: the stream is over.
        """
        if self._closed:
            raise WireClosed
        self._from_engine = asyncio.run_coroutine_threadsafe(self.send(events), self._loop)
        if self._closed:
            self._from_engine.cancel()
        try:
            self._from_engine.result()
        except CancelledError as error:
            raise WireClosed from error

    def close(self) -> None:
        """End every send, now and later."""
        self._closed = True
        if self._from_engine is not None:
            self._from_engine.cancel()

    async def _write(self, response: pb.ExecuteResponse) -> None:
        if self._closed:
            raise WireClosed
        try:
            await self._context.write(response)
        except (grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            raise WireClosed from error
