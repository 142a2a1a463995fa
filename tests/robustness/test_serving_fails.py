"""gRPC's own loop ends: a process that serves nobody must not look as if it did."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from longspan.v1 import document_service_pb2_grpc
from tests.e2e.conversation import Uploading
from tests.e2e.workers import free_port
from tests.pool.harness import until
from tests.security.http2 import answer, call_of

UNGUARDED = """
import sys
from longspan.server import __main__ as server, grpc_server

del grpc_server._Core._make_request_call_future
sys.exit(server.main(sys.argv[1:]))
"""
"""A server without what keeps it from a fault of grpc.aio, which one call triggers."""


@dataclass(frozen=True)
class Unguarded:
    """Its process, and where it listens."""

    process: asyncio.subprocess.Process
    port: int
    admin_port: int
    log: Path

    async def break_down(self, port: int) -> None:
        """End the loop that takes calls at a port."""
        await answer(port, call_of(b"/\xff"), b"grpc-status")

    async def status(self) -> int:
        """How the process ends, soon."""
        async with asyncio.timeout(10.0):
            return await self.process.wait()


@asynccontextmanager
async def unguarded(folder: Path) -> AsyncIterator[Unguarded]:
    """Start one; kill it if it still runs."""
    port, admin_port = free_port(), free_port()
    ready, log = folder / "ready.json", folder / "log"
    flags = ["--encoder", "none", "--data-dir", str(folder / "data"), "--drain-s", "60"]
    flags += ["--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{admin_port}"]
    with log.open("wb") as lines:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", UNGUARDED, *flags, "--ready-file", str(ready)), stderr=lines
        )
    try:
        await until(ready.exists, 60.0)
        yield Unguarded(process, port, admin_port, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("admin", [False, True])
async def test_a_server_whose_port_is_served_no_more_ends(tmp_path: Path, admin: bool) -> None:
    """At once, though calls are open that would stay so."""
    async with unguarded(tmp_path) as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            uploading = Uploading(document_service_pb2_grpc.DocumentServiceStub(channel))
            await uploading.open()
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            await watch.read()
            await server.break_down(server.admin_port if admin else server.port)
            assert await server.status() == 1
        said = server.log.read_text()
        assert "ending: a port is served no more: UnicodeDecodeError" in said
        assert "draining" not in said


async def test_a_port_that_is_served_no_more_ends_the_drain_too(tmp_path: Path) -> None:
    async with (
        unguarded(tmp_path) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        await Uploading(document_service_pb2_grpc.DocumentServiceStub(channel)).open()
        server.process.send_signal(signal.SIGTERM)
        await until(lambda: "draining" in server.log.read_text())
        await server.break_down(server.port)
        assert await server.status() == 1


async def test_a_server_that_is_stopped_has_not_failed(tmp_path: Path) -> None:
    async with unguarded(tmp_path) as server:
        server.process.send_signal(signal.SIGTERM)
        assert await server.status() == 0
        assert "ending" not in server.log.read_text()
