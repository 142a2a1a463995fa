"""The gRPC side of the worker: one Execute stream at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.internal.v1 import worker_service_pb2_grpc as pb_grpc
from longspan.worker.engine import Engine, Session
from longspan.worker.limits import HEARTBEAT_S, RESOURCES_S
from longspan.worker.served import Served
from longspan.worker.wire import Context, Wire, WireClosed


class WorkerService(pb_grpc.WorkerServiceServicer):
    """Executes commands of the one connected server."""

    def __init__(self, engine: Engine[Any, Any], served: Served) -> None:
        self._engine = engine
        self._served = served
        self._session: Session[Any, Any] | None = None
        self._resources: pb.Resources | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End the stream with UNAVAILABLE; the jobs it still holds were not run."""
        self._stopping.set()

    async def Execute(  # type: ignore[override]  # the stub also allows synchronous servers
        self, request_iterator: AsyncIterator[pb.ExecuteRequest], context: Context
    ) -> None:
        """Serve one stream until either side ends it."""
        if self._session is not None:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "another stream is open")
        session = Session(self._served.open(self._engine.wake), Wire(context))
        self._session = session
        self._engine.attach(session)
        try:
            await self._serve(session, request_iterator)
        finally:
            self._engine.detach(session)
            session.wire.close()
            self._session = None
        if self._stopping.is_set():
            left = session.workload.jobs
            message = f"the worker is stopping; {left} jobs were not run"
            await context.abort(grpc.StatusCode.UNAVAILABLE, message)

    async def _serve(
        self, session: Session[Any, Any], requests: AsyncIterator[pb.ExecuteRequest]
    ) -> None:
        self._resources = await asyncio.to_thread(self._served.look)
        await session.wire.send([self._served.ready])
        tasks = {
            asyncio.create_task(self._read(session, requests)),
            asyncio.create_task(self._beat(session)),
            asyncio.create_task(self._look()),
            asyncio.create_task(self._stopping.wait()),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except WireClosed:
            return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self, session: Session[Any, Any]) -> None:
        while True:
            event = self._engine.heartbeat(session)
            if self._resources is not None:
                event.heartbeat.resources.CopyFrom(self._resources)
                self._resources = None
            await session.wire.send([event])
            await asyncio.sleep(HEARTBEAT_S)

    async def _look(self) -> None:
        """Look in a thread: a driver that hangs must not hold up a heartbeat."""
        while True:
            await asyncio.sleep(RESOURCES_S)
            self._resources = await asyncio.to_thread(self._served.look)

    async def _read(
        self, session: Session[Any, Any], requests: AsyncIterator[pb.ExecuteRequest]
    ) -> None:
        async for request in requests:
            answers = self._engine.handle(session, request)
            if answers:
                await session.wire.send(answers)
