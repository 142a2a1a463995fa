"""gRPC's own loop ends: a process that serves nobody must not look as if it did."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.e2e.workers import free_port
from tests.pool.harness import until
from tests.security.http2 import answer, call_of

PLAIN_GRPC = """
import sys
import grpc
from longspan.server import __main__ as server, listener

def plain(options, interceptors=(), maximum_concurrent_rpcs=None):
    return grpc.aio.server(None, None, interceptors, options, maximum_concurrent_rpcs)

listener.grpc_server = plain
sys.exit(server.main(sys.argv[1:]))
"""
"""A server without what keeps it from a fault of grpc.aio, which one call triggers."""


@pytest.mark.parametrize("which", ["API", "admin"])
async def test_a_server_whose_port_is_served_no_more_ends(tmp_path: Path, which: str) -> None:
    ports = {"API": free_port(), "admin": free_port()}
    flags = ["--encoder", "none", "--data-dir", str(tmp_path / "data")]
    flags += ["--listen", f"127.0.0.1:{ports['API']}"]
    flags += ["--admin-listen", f"127.0.0.1:{ports['admin']}"]
    ready, log = tmp_path / "ready.json", tmp_path / "log"
    with log.open("wb") as lines:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PLAIN_GRPC, *flags, "--ready-file", str(ready)), stderr=lines
        )
    try:
        await until(ready.exists, 60.0)
        await answer(ports[which], call_of(b"/\xff"), b"grpc-status")
        async with asyncio.timeout(20.0):
            assert await process.wait() == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = log.read_text()
    assert "ending: a port is served no more: UnicodeDecodeError" in said
    assert "draining" not in said
