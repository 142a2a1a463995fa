"""SIGTERM: running calls finish, new ones are told why not; a second one does not wait."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import document_service_pb2_grpc, inference_service_pb2_grpc
from longspan.v1 import inference_service_pb2 as inference
from tests.e2e.conversation import Answer, Uploading, analyze_messages, ask, reason
from tests.e2e.workers import ServerProcess, server_process
from tests.support.data import EXAMPLES

TASK = ask("How quickly must a security incident be notified?")


@asynccontextmanager
async def _connected(server: ServerProcess) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield channel


async def _health(channel: grpc.aio.Channel) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    response = await stub.Check(health_pb2.HealthCheckRequest())
    return int(response.status)


async def _drains(server: ServerProcess) -> None:
    """On a connection of its own: refused with a reason, and not healthy."""
    async with _connected(server) as channel:
        stub: Any = document_service_pb2_grpc.DocumentServiceStub(channel)
        while await _health(channel) == health_pb2.HealthCheckResponse.SERVING:
            pass
        assert await _health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListDocuments(docs.ListDocumentsRequest())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason(caught.value) == "DRAINING"


async def test_a_terminated_server_finishes_what_runs_and_exits_in_order(tmp_path: Path) -> None:
    data = (EXAMPLES / "services-agreement.md").read_bytes()
    messages = list(analyze_messages(data, TASK, 4000))
    async with server_process(tmp_path) as server, _connected(server) as channel:
        workers = server.children()
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        call = stub.Analyze()
        for message in messages[:3]:
            await call.write(message)
        answer = Answer()
        answer.take(await call.read())
        server.signal(signal.SIGTERM)
        await _drains(server)
        for message in messages[3:]:
            await call.write(message)
        await call.done_writing()
        while (event := await call.read()) is not grpc.aio.EOF:
            answer.take(event)
        assert answer.end.finish_reason == inference.FINISH_REASON_STOP
        assert len(answer.said) == 6
        finished_s = time.monotonic()
        # Somebody who watches the health does not hold the server up.
        assert await server.wait(10.0) == 0
        print(f"exited {time.monotonic() - finished_s:.1f} s after the last answer")
        assert time.monotonic() - finished_s < 5.0
        watch.cancel()
        assert len(workers) == 1
        assert psutil.wait_procs(workers, timeout=0.1)[1] == []


async def test_a_call_that_does_not_end_is_cut_when_the_drain_is_over(tmp_path: Path) -> None:
    async with (
        server_process(tmp_path, "--encoder", "none", "--drain-s", "1") as server,
        _connected(server) as channel,
    ):
        uploading = Uploading(document_service_pb2_grpc.DocumentServiceStub(channel))
        await uploading.open()
        started_s = time.monotonic()
        server.signal(signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError):
            await uploading.hear_to_the_end()
        assert await server.wait(10.0) == 0
        assert 0.9 < time.monotonic() - started_s < 5.0


async def test_a_second_signal_does_not_wait_for_anybody(tmp_path: Path) -> None:
    async with (
        server_process(tmp_path, "--encoder", "none") as server,
        _connected(server) as channel,
    ):
        uploading = Uploading(document_service_pb2_grpc.DocumentServiceStub(channel))
        await uploading.open()
        server.signal(signal.SIGTERM)
        await _drains(server)
        started_s = time.monotonic()
        server.signal(signal.SIGTERM)
        assert await server.wait(5.0) == 130
        assert time.monotonic() - started_s < 1.0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await uploading.hear_to_the_end()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
