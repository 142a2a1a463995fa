"""``grpc.health.v1``: truthful, because it follows the workers and the drain."""

from __future__ import annotations

import asyncio

from grpc_health.v1 import health, health_pb2

DOCUMENTS = "longspan.v1.DocumentService"
INFERENCE = "longspan.v1.InferenceService"
_STATUS = health_pb2.HealthCheckResponse


class Health:
    """The status of the server as a whole and of each service.

    Documents are served while the process runs; answers, and the server as a whole, only
    while a worker of each model is ready.
    """

    def __init__(self) -> None:
        self.servicer = health.aio.HealthServicer()
        self._ready: dict[str, bool] = {}
        self._started = False
        self._tasks: set[asyncio.Task[None]] = set()

    def workers_changed(self, role: str, ready: bool) -> None:
        """The first worker of a model became ready, or the last one is gone."""
        self._ready[role] = ready
        if self._started:
            self._publish()

    def serving(self) -> None:
        """The listener is up."""
        self._started = True
        self._publish()

    async def drain(self) -> None:
        """Say NOT_SERVING from now on, whatever happens."""
        await self.servicer.enter_graceful_shutdown()

    def _publish(self) -> None:
        task = asyncio.get_running_loop().create_task(self._set())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _set(self) -> None:
        status = _STATUS.SERVING if all(self._ready.values()) else _STATUS.NOT_SERVING
        await self.servicer.set("", status)
        await self.servicer.set(INFERENCE, status)
        await self.servicer.set(DOCUMENTS, _STATUS.SERVING)
