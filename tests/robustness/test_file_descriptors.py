"""A server that may open no further file refuses what is new, serves what is old, and recovers."""

from __future__ import annotations

import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import grpc
import psutil

from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import document_service_pb2_grpc
from tests.e2e.conversation import Uploading, read_back, store
from tests.e2e.raw_calls import Refusal
from tests.support.process import ServerProcess

TEXT = b"The fee is due on Monday.\n" * 40
SPARE = 6


def allow(server: ServerProcess, spare: int) -> None:
    """Let the server open so many files more than it has open now."""
    pid = server.process.pid
    highest = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir())
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + spare, hard))


def uploads(folder: Path) -> int:
    """Uploads that count against the quota and are no documents yet."""
    with closing(sqlite3.connect(folder / "data" / "catalog.sqlite3")) as catalog:
        query = "SELECT count(*) FROM uploads WHERE document_id IS NULL"
        return int(catalog.execute(query).fetchone()[0])


async def filled(stub: document_service_pb2_grpc.DocumentServiceAsyncStub) -> list[Uploading]:
    """Open uploads, each of which holds a file, until one is refused as a full server refuses."""
    held: list[Uploading] = []
    while True:
        uploading = Uploading(stub)
        try:
            await uploading.open()
        except grpc.aio.AioRpcError as error:
            refusal = Refusal.of(error)
            assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED, refusal
            assert (refusal.reason, refusal.retry_after_s) == ("QUEUE_FULL", 1.0)
            return held
        held.append(uploading)
        assert len(held) <= 10 * SPARE, "nothing was refused"


async def test_without_files_new_uploads_are_refused_and_open_ones_finish(tmp_path: Path) -> None:
    with ServerProcess.running(tmp_path, "--encoder", "none") as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = document_service_pb2_grpc.DocumentServiceStub(channel)
            await store(stub, TEXT)
            allow(server, SPARE)
            held = await filled(stub)
            assert 0 < len(held) <= SPARE
            assert uploads(tmp_path) == len(held), "a refused upload counts against the quota"
            await stub.ListDocuments(docs.ListDocumentsRequest())
            ended = held.pop()
            ended.call.cancel()
            for number, uploading in enumerate(held):
                data = b"%d. " % number + TEXT
                await uploading.send(data, 0, len(data), 100)
                document = await uploading.finish(data)
                assert await read_back(stub, document.document_id) == data
            assert await filled(stub)
            assert psutil.pid_exists(server.process.pid)


async def test_connections_that_find_no_file_are_served_when_there_is_one(tmp_path: Path) -> None:
    with ServerProcess.running(tmp_path, "--encoder", "none") as server:
        target = f"127.0.0.1:{server.port}"
        async with grpc.aio.insecure_channel(target) as first:
            stub = document_service_pb2_grpc.DocumentServiceStub(first)
            await store(stub, TEXT)
            allow(server, 0)
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(target, options) as late:
                request = docs.ListDocumentsRequest()
                waiting = document_service_pb2_grpc.DocumentServiceStub(late).ListDocuments(
                    request, wait_for_ready=True, timeout=30.0
                )
                await stub.ListDocuments(request)
                allow(server, SPARE)
                assert len((await waiting).documents) == 1
