"""The gRPC side of the worker: one Execute stream at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.internal.v1 import worker_service_pb2_grpc as pb_grpc
from longspan.worker import events
from longspan.worker.admission import JobRefused, TextRules
from longspan.worker.engine import Engine, Session
from longspan.worker.job import JobId
from longspan.worker.limits import HEARTBEAT_S, StepLimits
from longspan.worker.scheduler import Scheduler
from longspan.worker.wire import Context, Wire, WireClosed


class WorkerService(pb_grpc.WorkerServiceServicer):
    """Executes commands of the one connected server."""

    def __init__(
        self, engine: Engine, *, ready: pb.Event, rules: TextRules, limits: StepLimits
    ) -> None:
        self._engine = engine
        self._ready = ready
        self._rules = rules
        self._limits = limits
        self._session: Session | None = None
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
        session = Session(Scheduler(self._limits), Wire(context))
        self._session = session
        self._engine.attach(session)
        try:
            await self._serve(session, request_iterator)
        finally:
            self._engine.detach(session)
            session.wire.close()
            self._session = None
        if self._stopping.is_set():
            left = session.scheduler.jobs
            message = f"the worker is stopping; {left} jobs were not run"
            await context.abort(grpc.StatusCode.UNAVAILABLE, message)

    async def _serve(self, session: Session, requests: AsyncIterator[pb.ExecuteRequest]) -> None:
        await session.wire.send([self._ready])
        tasks = {
            asyncio.create_task(self._read(session, requests)),
            asyncio.create_task(self._beat(session)),
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

    async def _beat(self, session: Session) -> None:
        while True:
            await session.wire.send([self._engine.heartbeat(session)])
            await asyncio.sleep(HEARTBEAT_S)

    async def _read(self, session: Session, requests: AsyncIterator[pb.ExecuteRequest]) -> None:
        async for request in requests:
            answer = self._command(session, request)
            if answer is not None:
                await session.wire.send([answer])

    def _command(self, session: Session, request: pb.ExecuteRequest) -> pb.Event | None:
        match request.WhichOneof("command"):
            case "encode":
                return self._encode(session, request.encode)
            case "cancel":
                cancelled = self._engine.cancel(session, JobId(request.cancel.job_id))
                return events.ended(cancelled) if cancelled else None
        return None

    def _encode(self, session: Session, encode: pb.Encode) -> pb.Event | None:
        job_id = JobId(encode.job_id)
        texts = tuple(encode.texts)
        try:
            self._rules.check(texts)
            wait_s = encode.max_wait_ms / 1000
            self._engine.submit(session, job_id, texts, max_wait_s=wait_s)
        except JobRefused as refusal:
            return events.refused(job_id, refusal)
        return None
