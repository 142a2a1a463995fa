"""What a tenant may keep: counted with its open uploads, given back by deletion and expiry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from longspan.client import AsyncClient, QuotaExceeded
from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import upload_pb2
from tests.e2e.conversation import Uploading, reason, store, tenant
from tests.support.serving import Serving, serving

A, B = tenant("a"), tenant("b")
KB = 1000


@asynccontextmanager
async def quotas(folder: Path, **limits: float) -> AsyncIterator[Serving]:
    """A server that only stores."""
    settings = {"encoder": "none", "trust_tenant_metadata": True, "limits": limits}
    async with serving(folder, **settings) as running:
        yield running


async def test_documents_are_counted_for_each_tenant_until_they_are_deleted(
    tmp_path: Path,
) -> None:
    """The third is refused by name; another tenant's is not, and the same bytes count once."""
    async with quotas(tmp_path, tenant_documents=2) as running:
        first = await store(running.documents, b"one", A)
        await store(running.documents, b"two", A)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await store(running.documents, b"three", A)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason(refused.value) == "QUOTA_EXCEEDED"
        assert _metadata(refused.value) == {"quota": "documents", "used": "2", "limit": "2"}
        await store(running.documents, b"three", B)
        await running.documents.DeleteDocument(
            docs.DeleteDocumentRequest(document_id=first.document_id), metadata=A
        )
        await store(running.documents, b"three", A)


async def test_bytes_are_reserved_when_declared_and_taken_as_they_come(tmp_path: Path) -> None:
    """What is declared counts from the header on; what is not, chunk by chunk."""
    async with quotas(tmp_path, tenant_bytes=100 * KB) as running:
        await store(running.documents, b"x" * 60 * KB)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _open_declared(running, 41 * KB)
        assert reason(refused.value) == "QUOTA_EXCEEDED"
        assert _metadata(refused.value)["used"] == str(60 * KB)
        undeclared = Uploading(running.documents)
        await undeclared.open()
        data = b"y" * 50 * KB
        await undeclared.send(data, 0, 40 * KB, 10 * KB)
        await undeclared.send(data, 40 * KB, 41 * KB, KB)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await undeclared.hear_to_the_end()
        assert reason(refused.value) == "QUOTA_EXCEEDED"
        # Nothing of the upload that did not fit is kept.
        assert await running.server.application.library.count_uploads() == 0
        await store(running.documents, b"z" * 40 * KB)
        with pytest.raises(grpc.aio.AioRpcError):
            await store(running.documents, b"!")


async def test_an_idle_upload_expires_and_gives_its_quota_back(tmp_path: Path) -> None:
    """Its bytes and its place count as long as it can be resumed, and not longer."""
    limits = {"tenant_documents": 1, "tenant_bytes": 100 * KB, "upload_lease_s": 0.3}
    async with quotas(tmp_path, **limits) as running:
        uploading = Uploading(running.documents)
        await uploading.open()
        await uploading.send(b"y" * 50 * KB, 0, 50 * KB, 10 * KB)
        while uploading.acknowledged < 50 * KB:
            await uploading.hear()
        uploading.call.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await store(running.documents, b"another")
        assert reason(refused.value) == "QUOTA_EXCEEDED"
        library = running.server.application.library
        async with asyncio.timeout(10):
            while await library.count_uploads():  # noqa: ASYNC110 (the sweep tells nobody)
                await asyncio.sleep(0.02)
        assert library.vault.spools() == []
        await store(running.documents, b"x" * 100 * KB)


async def test_the_client_names_the_quota(tmp_path: Path) -> None:
    """And does not try again."""
    async with quotas(tmp_path, tenant_bytes=10) as running, AsyncClient(running.target) as client:
        with pytest.raises(QuotaExceeded) as refused:
            await client.upload(b"more than ten bytes")
        assert (refused.value.quota, refused.value.used, refused.value.limit) == ("bytes", 0, 10)


async def _open_declared(running: Serving, size_bytes: int) -> None:
    header = upload_pb2.UploadHeader(declared_bytes=size_bytes)
    call = running.documents.Upload()
    await call.write(docs.UploadRequest(header=header))
    await call.read()


def _metadata(error: grpc.aio.AioRpcError) -> dict[str, str]:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return dict(info.metadata)


async def test_without_a_decoder_no_pages_are_kept(tmp_path: Path) -> None:
    """The cache is empty, nothing is an error, and documents do not say where pages lie."""
    async with quotas(tmp_path) as running, AsyncClient(running.target) as client:
        stats = await client.cache.stats()
        assert (stats.kv, stats.workers, stats.held) == (None, (), None)
        assert (await client.cache.verify()).checked == 0
        assert (await client.cache.clear()).pages == 0
        document = await client.upload(b"text")
        assert (await client.get(document)).kv is None
