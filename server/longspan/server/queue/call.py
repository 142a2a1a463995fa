"""One caller that waits for one job."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import EncodeFailed, LongspanError
from longspan.server.queue.job import Job, Subject
from longspan.server.queue.request import RequestInfo
from longspan.server.queue.wire import vectors_of


@dataclass(slots=True, eq=False)
class Call:
    """A job with its payload and the caller that waits, or waited, for it.

    Attributes:
        texts: token ids as the wire has them.
        result: unit vectors ``[texts, dimension]``; settled at most once.
    """

    job: Job
    texts: tuple[bytes, ...]
    max_wait_ms: int
    request: RequestInfo
    result: asyncio.Future[NDArray[np.float32]]

    @property
    def subject(self) -> Subject:
        """What the request is about."""
        return self.request.subject

    @property
    def waits(self) -> bool:
        """True while the caller has no answer and has not gone."""
        return not self.result.done()

    def fail(self, error: LongspanError) -> None:
        """End with an error, unless it has ended."""
        if self.waits:
            self.result.set_exception(error)

    def settle(self, event: pb.Event, dimension: int) -> None:
        """End with a worker's Encoded, Cancelled or Failed, unless it has ended."""
        if not self.waits:
            return
        try:
            self.result.set_result(self._vectors(event, dimension))
        except EncodeFailed as error:
            self.result.set_exception(error)

    def close(self) -> None:
        """The caller looks no more: an error that nobody saw is not worth a warning."""
        if not self.result.cancel() and not self.result.cancelled():
            self.result.exception()

    def _vectors(self, event: pb.Event, dimension: int) -> NDArray[np.float32]:
        if event.HasField("failed"):
            raise EncodeFailed(f"{event.failed.reason}: {event.failed.message}")
        if event.HasField("cancelled"):
            raise EncodeFailed("the worker cancelled the job of its own accord")
        return vectors_of(event.encoded, texts=len(self.texts), dimension=dimension)
