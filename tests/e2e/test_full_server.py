"""A server that is full, shared or deceived: who is refused, how soon, and what stays."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from longspan.server.errors import disk_full
from longspan.server.limits import Limits
from longspan.v1 import document_service_pb2 as documents_pb
from tests.e2e.raw_calls import (
    Metadata,
    Refusal,
    ask,
    check_resumes,
    chunk,
    collect,
    commit,
    generate,
    header,
    open_uploads,
    read,
    refused,
    store,
    upload,
    whole,
)
from tests.support.serving import serving
from tests.support.small_disk import small_disk
from tests.worker.models import skip_without_embedded

Code = grpc.StatusCode
TEXT = "Grüße aus Zürich, 你好. ".encode() * 40
HALF = 500
TENANTS = {"trust_tenant_metadata": True, "encoder": "none"}


def tenant(name: str) -> Metadata:
    """Call metadata."""
    return (("longspan-tenant", name),)


async def test_a_tenant_sees_nothing_of_another(tmp_path: Path) -> None:
    async with serving(tmp_path, **TENANTS) as running:
        document = await store(running, TEXT, tenant("acme"))
        other = await store(running, TEXT, tenant("other"))
        assert other.document_id != document.document_id
        events, _ = await upload(running, [header(), chunk(0, TEXT[:9])], tenant("acme"))
        upload_id = events[0].accepted.upload_id
        _, stolen = await upload(running, [header(upload_id=upload_id)], tenant("other"))
        assert stolen is not None
        assert (stolen.code, stolen.reason) == (Code.NOT_FOUND, "UPLOAD_MISSING")
        get = documents_pb.GetDocumentRequest(document_id=document.document_id)
        delete = documents_pb.DeleteDocumentRequest(document_id=document.document_id)
        for call in (
            running.documents.GetDocument(get, metadata=tenant("other")),
            running.documents.DeleteDocument(delete, metadata=tenant("other")),
            running.documents.GetDocument(get),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert Refusal.of(error.value).reason == "DOCUMENT_MISSING"
        listed = await running.documents.ListDocuments(
            documents_pb.ListDocumentsRequest(), metadata=tenant("acme")
        )
        assert [one.document_id for one in listed.documents] == [document.document_id]


@pytest.mark.parametrize("name", ["", "-x", "a/b", "x" * 65, "a b"])
async def test_a_malformed_tenant_is_refused(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, **TENANTS) as running:
        call: Any = running.documents.Upload(waiting_messages(), metadata=tenant(name))
        _, refusal = await collect(call)
        assert refusal is not None
        assert (refusal.code, refusal.metadata) == (
            Code.INVALID_ARGUMENT,
            {"field": "longspan-tenant"},
        )


async def waiting_messages(*messages: Any) -> AsyncIterator[Any]:
    """These messages, then silence."""
    for message in messages:
        yield message
    await asyncio.sleep(60)


async def test_a_client_that_falls_silent_is_ended_and_can_resume(tmp_path: Path) -> None:
    limits = Limits(chunk_wait_s=0.3)
    async with serving(tmp_path, encoder="none", limits=limits) as running:
        messages = waiting_messages(header(), chunk(0, TEXT[:HALF]))
        events, refusal = await collect(running.documents.Upload(messages))
        assert refusal is not None
        assert (refusal.code, refusal.reason) == (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        assert "0.3 s" in refusal.message
        await running.settled()
        await check_resumes(running, events[0].accepted.upload_id, HALF, TEXT)
        _, silent = await collect(running.documents.Upload(waiting_messages()))
        assert silent is not None
        assert silent.code is Code.DEADLINE_EXCEEDED
        assert await open_uploads(running) == 0


async def test_a_request_too_many_is_refused_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none", limits=Limits(requests=2)) as running:
        held = [running.documents.Upload(waiting_messages(header())) for _ in range(2)]
        for call in held:
            first = await call.read()
            assert isinstance(first, documents_pb.UploadResponse)
            assert first.HasField("accepted")
        started_s = time.monotonic()
        _, refusal = await collect(running.documents.Upload(waiting_messages()))
        assert time.monotonic() - started_s < 0.1
        assert refusal is not None
        assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert refusal.retry_after_s == 1.0
        for call in held:
            call.cancel()
        await running.settled()
        await store(running, TEXT)


async def test_a_floor_of_free_space_refuses_new_bytes(tmp_path: Path) -> None:
    free_bytes = shutil.disk_usage(tmp_path).free
    limits = Limits(free_space_bytes=free_bytes * 2)
    async with serving(tmp_path, encoder="none", limits=limits) as running:
        refusal = await refused(running, whole(TEXT))
        assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "DISK_FULL")
        assert refusal.retry_after_s == 30.0


async def check_full_disk(folder: Path, ballast: Path, fill: Any) -> None:
    """Upload until the disk is full, make room, resume, and read everything back."""
    data = bytes(range(32, 127)) * 30_000
    edges = list(range(0, len(data), 100_000))
    chunks = [chunk(start, data[start : start + 100_000]) for start in edges]
    async with serving(folder, encoder="none", limits=Limits(free_space_bytes=0)) as running:
        fill(ballast)
        events, refusal = await upload(running, [header(), *chunks, commit(data)])
        assert refusal is not None
        assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "DISK_FULL"), refusal
        assert refusal.retry_after_s == 30.0
        await running.settled()
        acked = max(event.ack.committed_bytes for event in events)
        await asyncio.to_thread(ballast.unlink)
        resuming = [header(upload_id=events[0].accepted.upload_id)]
        resumed, refusal = await upload(running, resuming)
        kept = resumed[0].accepted.committed_bytes
        assert refusal is not None
        assert acked <= kept < len(data)
        rest = [chunk(kept, data[kept : kept + 500_000])]
        position = kept + 500_000
        while position < len(data):
            rest.append(chunk(position, data[position : position + 500_000]))
            position += 500_000
        events, refusal = await upload(running, [*resuming, *rest, commit(data)])
        assert refusal is None, refusal
        assert await read(running, events[-1].stored.document.document_id) == data


async def test_a_full_disk_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    def fill(ballast: Path) -> None:
        free_bytes = shutil.disk_usage(tmp_path).free
        ballast.write_bytes(b"x" * (free_bytes - 1_500_000))

    with small_disk(tmp_path, "8m"):
        await check_full_disk(tmp_path, tmp_path / "ballast", fill)


def write_for_ever(path: Path) -> None:
    """Fill the disk to its last block."""
    with path.open("wb", buffering=0) as ballast:
        while ballast.write(b"x" * 4096):
            pass


async def test_a_document_can_be_deleted_from_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path, "8m"):
        async with serving(tmp_path, encoder="none", limits=Limits(free_space_bytes=0)) as running:
            document = await store(running, b"x" * 1_000_000)
            with pytest.raises(OSError, match="No space"):
                write_for_ever(tmp_path / "ballast")
            refusal = await refused(running, whole(TEXT))
            assert refusal.reason == "DISK_FULL"
            delete = documents_pb.DeleteDocumentRequest(document_id=document.document_id)
            await running.documents.DeleteDocument(delete)
            await store(running, TEXT)


async def test_a_lease_that_finds_no_room_costs_no_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last block may be gone between the document's row and the lease of its upload."""

    async def touch(_: object) -> None:
        raise disk_full()

    async with serving(tmp_path, encoder="none") as running:
        monkeypatch.setattr(running.server.application.library, "touch", touch)
        document = await store(running, TEXT)
        assert await read(running, document.document_id) == TEXT


def index_files(folder: Path) -> list[Path]:
    """Index files, and what is left of them."""
    return [*folder.rglob("*.index"), *folder.rglob("*.tmp")]


async def test_an_index_that_finds_no_room_costs_no_answer(tmp_path: Path) -> None:
    skip_without_embedded()
    content = b"The fee is 3 euros. It is due on Monday. " * 200
    with small_disk(tmp_path, "8m"):
        async with serving(tmp_path, limits=Limits(free_space_bytes=0)) as running:
            free_bytes = shutil.disk_usage(tmp_path).free
            (tmp_path / "ballast").write_bytes(b"x" * (free_bytes - len(content) - 68_000))
            document = await store(running, content)
            answer = await generate(running, [document.document_id], ask("What is the fee?"))
            assert answer.citations
            assert index_files(tmp_path) == [], "the disk was not full"


SEND_BOMB = """
import sys, grpc
with grpc.insecure_channel(sys.argv[1], compression=grpc.Compression.Gzip) as channel:
    call = channel.stream_stream("/longspan.v1.DocumentService/Upload")
    try:
        list(call(iter([bytes(200 << 20)])))
    except grpc.RpcError as error:
        print(error.code().name)
"""


async def test_a_compressed_bomb_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none") as running:
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sender = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SEND_BOMB, running.target, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await sender.communicate()
        assert said.decode().strip() == "RESOURCE_EXHAUSTED"
        grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib) / 1024
        assert grown_mib < 64
        await store(running, TEXT)
