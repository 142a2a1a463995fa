"""Measures an answer while it is told."""

from __future__ import annotations

import asyncio
from typing import Any

from longspan.server.metrics.requests import RequestMetrics
from longspan.server.services.conversation import Clock
from longspan.server.services.wire import Outgoing
from longspan.v1 import inference_service_pb2 as pb

SAID = frozenset({"delta", "reasoning", "citation", "unverified"})


class Measured:
    """An ``Outgoing`` that notes when the first event and the last one of an answer leave.

    Args:
        outbox: where events go.
        metrics: where times go.
        task: its kind, which the client has named.
        clock: of the request.
    """

    def __init__(self, outbox: Outgoing, metrics: RequestMetrics, task: str, clock: Clock) -> None:
        self._outbox = outbox
        self._metrics = metrics
        self._task = task
        self._clock = clock
        self._began = False

    async def send(self, **event: Any) -> None:
        """Hand on one event."""
        if not self._began and event.keys() & SAID:
            self._began = True
            self._metrics.began(_now_s() - self._clock.last_byte_s)
        if (completed := event.get("completed")) is not None:
            self._complete(completed)
        await self._outbox.send(**event)

    def _complete(self, completed: pb.Completed) -> None:
        usage = completed.usage
        self._metrics.completed(
            self._task,
            usage.document_tokens + usage.task_tokens,
            _now_s() - self._clock.arrived_s,
            completed.timings.per_token.ToNanoseconds() / 1e9,
        )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
