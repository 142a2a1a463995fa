"""Sends one document and yields what the server says, across broken streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from longspan.client._aio_sources import AsyncReader
from longspan.client._aio_wire import AsyncWire
from longspan.client._aio_writing import OVER, write
from longspan.client._events import Accepted, Ack, Message, Stored, decode
from longspan.client._exceptions import ConnectionLost, LongspanError
from longspan.client._replay_buffer import Supply
from longspan.client._requests import Envelope
from longspan.client._types import Completed
from longspan.client._upload import Part, UploadCursor


class AsyncSending:
    """One upload, for ``Upload`` and ``Analyze`` alike.

    The source is read by one task for the upload's whole life, so that a broken stream never
    interrupts a read; each stream has a task that writes what the cursor says.
    """

    def __init__(
        self, wire: AsyncWire, method: Any, envelope: Envelope, reader: AsyncReader
    ) -> None:
        self._wire = wire
        self._method = method
        self._envelope = envelope
        self._reader = reader
        self._cursor = UploadCursor()
        self._deadline = wire.deadline()
        self._patience = wire.patience()
        self._changed = asyncio.Condition()
        self._source_error: Exception | None = None

    async def messages(self) -> AsyncGenerator[Message, None]:
        """Everything from Accepted to Stored or Completed; Accepted begins each stream.

        Raises:
            LongspanError: the upload failed.
            Exception: what the source raised.
        """
        reading = asyncio.create_task(self._read_source())
        try:
            while True:
                try:
                    async with aclosing(self._stream()) as messages:
                        async for message in messages:
                            yield message
                    return
                except LongspanError as error:
                    await self._recover(error)
        finally:
            await _end(reading)

    async def _stream(self) -> AsyncGenerator[Message, None]:
        call = self._method(
            timeout=await self._wire.connect(self._deadline), metadata=self._wire.metadata
        )
        writing = asyncio.create_task(self._write(call))
        try:
            async with aclosing(self._wire.receive(call)) as responses:
                async for response in responses:
                    message = decode(response)
                    if message is not None:
                        await self._take(message)
                        yield message
                    if isinstance(message, Stored | Completed):
                        return
            raise ConnectionLost("the server ended the stream too early")
        finally:
            await _end(writing)

    async def _take(self, message: Message) -> None:
        match message:
            case Accepted():
                self._cursor.accepted(
                    message.upload_id, message.committed_bytes, message.max_chunk_bytes
                )
            case Ack():
                self._cursor.acked(message.committed_bytes)
            case Stored() | Completed():
                self._cursor.finished()
            case _:
                return
        self._patience.progressed()
        await self._notify()

    async def _recover(self, error: LongspanError) -> None:
        if self._source_error is not None:
            raise self._source_error
        await self._wire.pause(self._patience, error)
        self._cursor.broke(error)

    async def _write(self, call: Any) -> None:
        try:
            await call.wait_for_connection()
            while (part := await self._next_part()) is not None:
                await write(call, self._envelope.wrap(part))
            await call.done_writing()
        except OVER:
            return

    async def _next_part(self) -> Part | None:
        async with self._changed:
            while True:
                part = self._cursor.next_part()
                if part is not None or self._source_error or self._cursor.all_sent:
                    return part
                await self._changed.wait()

    async def _read_source(self) -> None:
        try:
            while True:
                async with self._changed:
                    await self._changed.wait_for(self._source_is_due)
                if self._cursor.supply is Supply.REWINDING:
                    await self._reader.rewind()
                    self._cursor.rewound()
                else:
                    self._cursor.feed(await self._reader.read(self._cursor.room))
                await self._notify()
        except Exception as error:  # whatever the caller's source raises is the caller's
            self._source_error = error
            await self._notify()

    def _source_is_due(self) -> bool:
        return self._cursor.supply is Supply.REWINDING or self._cursor.room > 0

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
