"""What listens, and what answers there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.serving import Serving, serving

SERVING = health_pb2.HealthCheckResponse.SERVING


async def services(target: str) -> list[str]:
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await call.read()
        await call.done_writing()
        return [service.name for service in answer.list_services_response.service]


async def status(target: str, service: str) -> int:
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        return int(answer.status)


def admin_target(running: Serving) -> str:
    return f"127.0.0.1:{running.server.admin_port}"


async def test_reflection_answers_on_the_admin_port_only(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none", admin_listen="127.0.0.1:0") as running:
        names = await services(admin_target(running))
        assert "longspan.v1.InferenceService" in names
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await services(running.target)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_answers_on_both_ports(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none", admin_listen="127.0.0.1:0") as running:
        for target in (running.target, admin_target(running)):
            assert await status(target, "") == SERVING
            assert await status(target, "longspan.v1.DocumentService") == SERVING


async def test_nothing_listens_but_what_was_declared(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none", admin_listen="127.0.0.1:0") as running:
        listening = {
            connection.laddr.port
            for connection in psutil.Process().net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {running.server.port, running.server.admin_port}
