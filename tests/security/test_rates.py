"""How fast a tenant may ask and send: the others do not notice, and uploads are only slowed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from longspan.client import AsyncClient
from longspan.v1 import document_service_pb2 as docs
from tests.e2e.conversation import Uploading
from tests.e2e.raw_calls import Metadata, Refusal, store
from tests.support.serving import Serving, serving

A: Metadata = (("longspan-tenant", "a"),)
B: Metadata = (("longspan-tenant", "b"),)
KB = 1000
SIZE, CHUNK, RATE = 300 * KB, 10 * KB, 200 * KB


@asynccontextmanager
async def limited(folder: Path, **limits: int) -> AsyncIterator[Serving]:
    """A server that only stores."""
    settings = {"encoder": "none", "trust_tenant_metadata": True, "limits": limits}
    async with serving(folder, **settings) as running:
        yield running


async def listed(running: Serving, metadata: Metadata) -> Refusal | None:
    try:
        await running.documents.ListDocuments(docs.ListDocumentsRequest(), metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return Refusal.of(error)
    return None


async def test_requests_a_minute(tmp_path: Path) -> None:
    async with limited(tmp_path, tenant_requests_per_minute=3) as running:
        assert [await listed(running, A) for _ in range(3)] == [None] * 3
        refused = await listed(running, A)
        assert refused is not None
        assert (refused.code.name, refused.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
        assert refused.retry_after_s is not None
        assert 0 < refused.retry_after_s <= 20
        assert await listed(running, B) is None


async def test_requests_at_once(tmp_path: Path) -> None:
    async with limited(tmp_path, tenant_requests=1) as running:
        uploading = Uploading(running.documents)
        await uploading.open()
        refused = await listed(running, ())
        assert refused is not None
        assert refused.reason == "RATE_LIMITED"
        assert await listed(running, B) is None
        await uploading.send(b"text", 0, 4, 4)
        await uploading.finish(b"text")
        await running.settled()
        assert await listed(running, ()) is None


async def test_an_upload_that_is_too_fast_is_slowed_and_not_refused(tmp_path: Path) -> None:
    """Never is more acknowledged than the rate allows, and in the end all of it is there."""
    async with limited(tmp_path, tenant_upload_bytes_per_s=RATE) as running:
        data = b"x" * SIZE
        started_s = time.monotonic()
        uploading = Uploading(running.documents)
        await uploading.open()
        await uploading.send(data, 0, SIZE, CHUNK)
        await uploading.commit(data)
        while await uploading.hear():
            elapsed_s = time.monotonic() - started_s
            # The first second's bytes may come at once; the chunk after them is read on credit.
            assert uploading.acknowledged <= RATE * (1 + elapsed_s) + CHUNK
        assert uploading.stored is not None
        assert time.monotonic() - started_s >= (SIZE - RATE) / RATE
        # Another tenant's pace is its own.
        await store(running, b"y" * RATE, B)


async def test_a_slowed_upload_gives_way_to_a_newer_stream(tmp_path: Path) -> None:
    """Its debt would take five minutes to pay."""
    async with limited(tmp_path, tenant_upload_bytes_per_s=KB) as running:
        data = b"x" * SIZE
        older, newer = Uploading(running.documents), Uploading(running.documents)
        await older.open()
        await older.send(data, 0, SIZE, SIZE)
        while older.acknowledged < SIZE:
            await older.hear()
        assert await newer.open(older.upload_id) == SIZE
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await older.hear_to_the_end()
        assert Refusal.of(gone.value).reason == "UPLOAD_BUSY"
        assert (await newer.finish(data)).size_bytes == SIZE


async def test_the_client_waits_and_comes_back(tmp_path: Path) -> None:
    async with limited(tmp_path, tenant_requests_per_minute=120) as running:
        for _ in range(120):
            await listed(running, ())
        async with AsyncClient(running.target) as client:
            assert (await client.upload(b"text")).size_bytes == 4
