"""An answer as it arrives, blocking."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Self

from longspan.client import _requests
from longspan.client._events import decode
from longspan.client._exceptions import ConnectionLost, LongspanError
from longspan.client._requests import AnalyzeEnvelope, Documents, Heading
from longspan.client._sources import Source, open_source
from longspan.client._sync_sending import SyncSending
from longspan.client._sync_wire import SyncWire
from longspan.client._tasks import Task
from longspan.client._transcript import Transcript
from longspan.client._types import Answer, Completed, Event, TextDelta
from longspan.v1 import inference_service_pb2


class AnswerStream:
    """The events of one request; leaving the block cancels the call at once.

    ::

        with client.ask(document, "Which risks are new?") as stream:
            for text in stream.text():
                print(text, end="")
            answer = stream.result()
    """

    def __init__(self, events: Generator[Event, None, None], transcript: Transcript) -> None:
        self._events = events
        self._transcript = transcript

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._events.close()

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def text(self) -> Iterator[str]:
        """The text of the answer, piece by piece."""
        for event in self._events:
            if isinstance(event, TextDelta):
                yield event.text

    def result(self) -> Answer:
        """The whole answer; reads what has not been read.

        Raises:
            LongspanError: the request failed.
            RuntimeError: the block was left before the answer was complete.
        """
        for _ in self._events:
            pass
        answer = self._transcript.answer()
        if answer is None:
            raise RuntimeError("the stream was left before the answer was complete")
        return answer


def generating(
    wire: SyncWire, documents: Documents, task: Task, transcript: Transcript
) -> Generator[Event, None, None]:
    """The events of a task on stored documents, each once."""
    request = _requests.generate(documents, _message(task))
    deadline, patience = wire.deadline(), wire.patience()
    while True:
        try:
            call = wire.inference.Generate(
                request, timeout=wire.connect(deadline), metadata=wire.metadata
            )
            transcript.reopen()
            with closing(wire.receive(call)) as responses:
                for response in responses:
                    event = transcript.admit(decode(response))
                    if event is not None:
                        patience.progressed()
                        yield event
                    if isinstance(event, Completed):
                        return
            raise ConnectionLost("the server ended the stream too early")
        except LongspanError as error:
            wire.pause(patience, error)


def analyzing(
    wire: SyncWire,
    source: Source,
    task: Task,
    title: str | None,
    media_type: str | None,
    transcript: Transcript,
) -> Generator[Event, None, None]:
    """The events of an upload with a task, each once."""
    reader = open_source(source)
    try:
        envelope = AnalyzeEnvelope(Heading.of(reader, title, media_type), _message(task))
        sending = SyncSending(wire, wire.inference.Analyze, envelope, reader)
        with closing(sending.messages()) as messages:
            for message in messages:
                event = transcript.admit(message)
                if event is not None:
                    yield event
    finally:
        reader.close()


def _message(task: Task) -> inference_service_pb2.Task:
    return _requests.task_message(task, seed=random.getrandbits(63))
