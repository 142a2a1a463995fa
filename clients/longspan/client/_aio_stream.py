"""An answer as it arrives, on the event loop."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from longspan.client import _requests
from longspan.client._aio_sending import AsyncSending
from longspan.client._aio_sources import open_async_source
from longspan.client._aio_wire import AsyncWire
from longspan.client._events import decode
from longspan.client._exceptions import ConnectionLost, LongspanError
from longspan.client._requests import AnalyzeEnvelope, Documents, Heading
from longspan.client._sources import AsyncSource
from longspan.client._tasks import Task
from longspan.client._transcript import Transcript
from longspan.client._types import Answer, Completed, Event, TextDelta
from longspan.v1 import inference_service_pb2


class AsyncAnswerStream:
    """The events of one request; leaving the block cancels the call at once.

    ::

        async with client.ask(document, "Which risks are new?") as stream:
            async for text in stream.text():
                print(text, end="")
            answer = await stream.result()
    """

    def __init__(self, events: AsyncGenerator[Event, None], transcript: Transcript) -> None:
        self._events = events
        self._transcript = transcript

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._events.aclose()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def text(self) -> AsyncIterator[str]:
        """The text of the answer, piece by piece."""
        async for event in self._events:
            if isinstance(event, TextDelta):
                yield event.text

    async def result(self) -> Answer:
        """The whole answer; reads what has not been read.

        Raises:
            LongspanError: the request failed.
            RuntimeError: the block was left before the answer was complete.
        """
        async for _ in self._events:
            pass
        answer = self._transcript.answer()
        if answer is None:
            raise RuntimeError("the stream was left before the answer was complete")
        return answer


async def generating(
    wire: AsyncWire, documents: Documents, task: Task, transcript: Transcript
) -> AsyncGenerator[Event, None]:
    """The events of a task on stored documents, each once."""
    request = _requests.generate(documents, _message(task))
    deadline, patience = wire.deadline(), wire.patience()
    while True:
        try:
            call = wire.inference.Generate(
                request, timeout=await wire.connect(deadline), metadata=wire.metadata
            )
            transcript.reopen()
            async with aclosing(wire.receive(call)) as responses:
                async for response in responses:
                    event = transcript.admit(decode(response))
                    if event is not None:
                        patience.progressed()
                        yield event
                    if isinstance(event, Completed):
                        return
            raise ConnectionLost("the server ended the stream too early")
        except LongspanError as error:
            await wire.pause(patience, error)


async def analyzing(
    wire: AsyncWire,
    source: AsyncSource,
    task: Task,
    title: str | None,
    media_type: str | None,
    transcript: Transcript,
) -> AsyncGenerator[Event, None]:
    """The events of an upload with a task, each once."""
    reader = await open_async_source(source)
    try:
        envelope = AnalyzeEnvelope(Heading.of(reader, title, media_type), _message(task))
        sending = AsyncSending(wire, wire.inference.Analyze, envelope, reader)
        async with aclosing(sending.messages()) as messages:
            async for message in messages:
                event = transcript.admit(message)
                if event is not None:
                    yield event
    finally:
        await reader.close()


def _message(task: Task) -> inference_service_pb2.Task:
    return _requests.task_message(task, seed=random.getrandbits(63))
