"""Sends one document and yields what the server says, across broken streams."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from longspan.client._events import Accepted, Ack, Message, Stored, decode
from longspan.client._exceptions import ConnectionLost, LongspanError
from longspan.client._replay_buffer import Supply
from longspan.client._requests import Envelope, Request
from longspan.client._sources import Reader
from longspan.client._sync_wire import SyncWire
from longspan.client._types import Completed
from longspan.client._upload import Part, UploadCursor


class SyncSending:
    """One upload, for ``Upload`` and ``Analyze`` alike.

    grpc takes the requests from an iterator in a thread of its own, one for each stream. The
    source is read there; a stream that broke during a read leaves what it read to the next.
    """

    def __init__(self, wire: SyncWire, method: Any, envelope: Envelope, reader: Reader) -> None:
        self._wire = wire
        self._method = method
        self._envelope = envelope
        self._reader = reader
        self._cursor = UploadCursor()
        self._deadline = wire.deadline()
        self._patience = wire.patience()
        self._changed = threading.Condition()
        self._source = threading.Lock()
        self._stream_number = 0
        self._source_error: Exception | None = None

    def messages(self) -> Generator[Message, None, None]:
        """Everything from Accepted to Stored or Completed; Accepted begins each stream.

        Raises:
            LongspanError: the upload failed.
            Exception: what the source raised.
        """
        while True:
            try:
                yield from self._stream()
                return
            except LongspanError as error:
                self._recover(error)

    def _stream(self) -> Generator[Message, None, None]:
        call = self._method(
            self._requests(self._stream_number),
            timeout=self._wire.connect(self._deadline),
            metadata=self._wire.metadata,
        )
        try:
            with closing(self._wire.receive(call)) as responses:
                for response in responses:
                    message = decode(response)
                    if message is not None:
                        self._take(message)
                        yield message
                    if isinstance(message, Stored | Completed):
                        return
            raise ConnectionLost("the server ended the stream too early")
        finally:
            with self._changed:
                self._stream_number += 1
                self._changed.notify_all()

    def _take(self, message: Message) -> None:
        with self._changed:
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
            self._changed.notify_all()

    def _recover(self, error: LongspanError) -> None:
        if self._source_error is not None:
            raise self._source_error
        self._wire.pause(self._patience, error)
        with self._changed:
            self._cursor.broke(error)

    def _requests(self, stream_number: int) -> Iterator[Request]:
        while (part := self._next_part(stream_number)) is not None:
            yield self._envelope.wrap(part)

    def _next_part(self, stream_number: int) -> Part | None:
        """The next part of one stream; None ends it."""
        while True:
            with self._changed:
                if stream_number != self._stream_number or self._source_error is not None:
                    return None
                part = self._cursor.next_part()
                if part is not None or self._cursor.all_sent:
                    return part
                if not self._source_is_due():
                    self._changed.wait()
                    continue
            self._read_source(stream_number)

    def _source_is_due(self) -> bool:
        return self._cursor.supply is Supply.REWINDING or self._cursor.room > 0

    def _read_source(self, stream_number: int) -> None:
        with self._source:
            with self._changed:
                if stream_number != self._stream_number or not self._source_is_due():
                    return
                rewinding, room = self._cursor.supply is Supply.REWINDING, self._cursor.room
            try:
                if rewinding:
                    self._reader.rewind()
                data = None if rewinding else self._reader.read(room)
            except Exception as error:  # whatever the caller's source raises is the caller's
                self._source_error = error
                return
            with self._changed:
                self._feed(data)
                self._changed.notify_all()

    def _feed(self, data: bytes | None) -> None:
        if data is None:
            self._cursor.rewound()
        else:
            self._cursor.feed(data)
