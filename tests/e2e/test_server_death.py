"""The server is killed while documents arrive; a new one on the same folder goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from longspan.v1 import document_service_pb2_grpc
from tests.e2e.conversation import Uploading, read_back, sha256
from tests.e2e.workers import ServerProcess, server_process
from tests.support.seeds import seeded

CUTS = 6
COMMITS = 5
DOCUMENT_BYTES = 3_000_000
CHUNK_BYTES = 40_000


def _document(size_bytes: int, rng: random.Random) -> bytes:
    """Text of one to four bytes a character."""
    text = "".join(rng.choices("aehr st.\n,üßλ漢字😀", k=size_bytes // 2))
    return text.encode()[:size_bytes].decode(errors="ignore").encode()


@asynccontextmanager
async def _stub(server: ServerProcess) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield document_service_pb2_grpc.DocumentServiceStub(channel)


async def _hear_until_dead(uploading: Uploading) -> None:
    try:
        await uploading.hear_to_the_end()
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise


async def _send_until_killed(
    server: ServerProcess, upload_id: str, data: bytes, expected: int, rng: random.Random
) -> tuple[str, int]:
    """Send up to a random byte, kill the server a moment later; upload and last ack."""
    async with _stub(server) as stub:
        uploading = Uploading(stub)
        accepted = await uploading.open(upload_id)
        assert accepted >= expected
        hearing = asyncio.create_task(_hear_until_dead(uploading))
        cut = rng.randint(accepted, min(accepted + len(data) // CUTS * 2, len(data)))
        await uploading.send(data, accepted, cut, rng.randint(CHUNK_BYTES // 8, CHUNK_BYTES))
        await asyncio.sleep(rng.uniform(0.0, 0.03))
        await server.kill()
        await hearing
        return uploading.upload_id, uploading.acknowledged


async def test_a_killed_server_resumes_where_it_acknowledged_again_and_again(
    tmp_path: Path,
) -> None:
    rng = seeded()
    data = _document(DOCUMENT_BYTES, rng)
    upload_id, acknowledged, resumed = "", 0, []
    async with server_process(tmp_path, "--encoder", "none") as server:
        for _ in range(CUTS):
            upload_id, acknowledged = await _send_until_killed(
                server, upload_id, data, acknowledged, rng
            )
            resumed.append(acknowledged)
            await server.start()
        async with _stub(server) as stub:
            uploading = Uploading(stub)
            start = await uploading.open(upload_id)
            assert start >= acknowledged
            await uploading.send(data, start, len(data), CHUNK_BYTES)
            document = await uploading.finish(data)
            assert document.sha256 == sha256(data)
            assert await read_back(stub, document.document_id) == data
    print("acknowledged before each death:", resumed)
    assert len({count for count in resumed if count}) > CUTS // 2


async def test_a_server_killed_around_the_commit_has_the_whole_document_afterwards(
    tmp_path: Path,
) -> None:
    rng = seeded()
    stored = 0
    async with server_process(tmp_path, "--encoder", "none") as server:
        for number in range(COMMITS):
            data = _document(200_000 + number, rng)
            async with _stub(server) as stub:
                uploading = Uploading(stub)
                await uploading.open()
                await uploading.send(data, 0, len(data), CHUNK_BYTES)
                # The last one is killed only after it was heard to be stored.
                if number == COMMITS - 1:
                    await uploading.finish(data)
                else:
                    while uploading.acknowledged < len(data):
                        await uploading.hear()
                    await uploading.commit(data)
                    await asyncio.sleep(rng.uniform(0.0, 0.004))
                await server.kill()
                await _hear_until_dead(uploading)
                stored += uploading.stored is not None
            await server.start()
            async with _stub(server) as stub:
                again = Uploading(stub)
                assert await again.open(uploading.upload_id) == len(data)
                document = await again.finish(data)
                assert uploading.stored in (None, document)
                assert await read_back(stub, document.document_id) == data
    print(f"{stored} of {COMMITS} were heard to be stored before the death")
    assert stored >= 1
