"""Signals at bad moments: under load, during the start, twice; SIGKILL leaves nothing behind."""

from __future__ import annotations

import asyncio
import itertools
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from longspan.v1 import document_service_pb2_grpc
from tests.e2e.conversation import read_back
from tests.e2e.raw_calls import Refusal, whole
from tests.e2e.workers import ServerProcess, server_process
from tests.pool.harness import until
from tests.worker.models import skip_without_embedded

CLIENTS = 5
TEXT = b"The fee is due on Monday.\n" * 400


def keep_uploading(target: str, name: int, stored: dict[str, bytes]) -> Refusal:
    """One document after the other, until the server does not want any more.

    In a thread: a write of ``grpc.aio`` that meets a refusal hides it.
    """
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(target, options) as channel:
        stub: Any = document_service_pb2_grpc.DocumentServiceStub(channel)
        for number in itertools.count():
            data = b"%d of client %d. " % (number, name) + TEXT
            accepted = False
            try:
                for event in stub.Upload(iter(whole(data, range(1000, len(data), 1000)))):
                    accepted |= event.HasField("accepted")
                    if event.HasField("stored"):
                        stored[event.stored.document.document_id] = data
            except grpc.RpcError as error:
                if accepted:
                    raise  # what was admitted is finished: only a new call may be refused
                return Refusal.of(error)
    raise AssertionError


async def test_a_server_terminated_under_load_finishes_all_that_it_admitted(
    tmp_path: Path,
) -> None:
    stored: dict[str, bytes] = {}
    async with server_process(tmp_path, "--encoder", "none") as server:
        clients = [
            asyncio.create_task(asyncio.to_thread(keep_uploading, server.target, name, stored))
            for name in range(CLIENTS)
        ]
        await until(lambda: len(stored) >= 3 * CLIENTS)
        server.signal(signal.SIGTERM)
        for refusal in await asyncio.gather(*clients):
            # gRPC's own words, once the last admitted call is over and it stops.
            if refusal.reason or refusal.code is not grpc.StatusCode.CANCELLED:
                assert refusal.code is grpc.StatusCode.UNAVAILABLE
                assert refusal.reason in ("DRAINING", "")
        assert await server.wait(20.0) == 0
        await server.start()
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub = document_service_pb2_grpc.DocumentServiceStub(channel)
            for document_id, data in stored.items():
                assert await read_back(stub, document_id) == data


async def starting(server: ServerProcess) -> list[psutil.Process]:
    """The workers of a server that has begun to start and does not serve yet."""
    await until(lambda: server.started and server.children() != [])
    return server.children()


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_server_terminated_while_it_starts_leaves_nothing(
    tmp_path: Path, signals: int
) -> None:
    skip_without_embedded()
    server = ServerProcess(tmp_path)
    serving = asyncio.create_task(server.start())
    try:
        workers = await starting(server)
        for _ in range(signals):
            server.signal(signal.SIGTERM)
        assert await server.wait(20.0) in (0, 130)
        gone, alive = await asyncio.to_thread(psutil.wait_procs, workers, 10.0)
        assert (len(gone), alive) == (len(workers), [])
        with pytest.raises(AssertionError):
            await serving
    finally:
        serving.cancel()
        server.close()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Where sockets fit below a data directory."""
    with tempfile.TemporaryDirectory(prefix="longspan-") as folder:
        yield Path(folder)


async def test_a_killed_server_leaves_no_process_and_its_sockets_go_with_the_next_start(
    short_folder: Path,
) -> None:
    skip_without_embedded()
    server, sockets = ServerProcess(short_folder), short_folder / "data" / "run"
    serving = asyncio.create_task(server.start())
    try:
        workers = await starting(server)
        await server.kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, workers, 10.0)
        assert alive == []
        with pytest.raises(AssertionError):
            await serving
    finally:
        serving.cancel()
        server.close()
    [left] = sockets.iterdir()
    async with server_process(short_folder, "--encoder", "none") as again:
        assert again.children() == []
        assert not left.exists()
