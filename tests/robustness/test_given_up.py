"""Uploads whose clients go away at any moment of the beginning leave nothing in the quota."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import grpc

from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import document_service_pb2_grpc, upload_pb2
from tests.support.seeds import seeded
from tests.support.serving import serving

CLIENTS = 10
UPLOADS = 40
LONGEST_S = 0.01


async def begin_and_leave(
    stub: document_service_pb2_grpc.DocumentServiceAsyncStub, rng: random.Random
) -> None:
    """A header, and then nothing more."""
    header = upload_pb2.UploadHeader(declared_bytes=1000)
    for _ in range(UPLOADS):
        call = stub.Upload()
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(docs.UploadRequest(header=header))
            await asyncio.sleep(rng.uniform(0, LONGEST_S))
        call.cancel()


async def test_uploads_that_are_given_up_count_no_more(tmp_path: Path) -> None:
    rng = seeded()
    async with serving(tmp_path, encoder="none") as running:
        clients = [begin_and_leave(running.documents, rng) for _ in range(CLIENTS)]
        await asyncio.gather(*clients)
        await running.settled()
        assert await running.server.application.library.count_uploads() == 0
