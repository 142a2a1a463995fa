"""Clients that hold connections and streams and send next to nothing: ended, or harmless.

A document may be written slowly, so that a stream which brings a little now and then is served:
it holds one of ``limits.requests``, a file, and nobody else's place.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import document_service_pb2_grpc
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import Uploading, read_back, store
from tests.e2e.generation import generating, hear, prompt
from tests.e2e.raw_calls import Refusal
from tests.pool.stories import stories
from tests.support.process import ServerProcess

HANDSHAKE_S = 1.0
SILENCE_S = 1.0
FLAGS: tuple[str, ...] = ("--encoder", "none", "--limits.handshake-s", str(HANDSHAKE_S))
FLAGS += ("--limits.chunk-wait-s", str(SILENCE_S))
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes(3) + b"\x04" + bytes(5)
MIB = 1 << 20
TEXT = b"The fee is due on Monday.\n" * 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of little patience."""
    with ServerProcess.running(tmp_path_factory.mktemp("server"), *FLAGS) as running:
        yield running


@contextlib.asynccontextmanager
async def stub_of(server: ServerProcess) -> AsyncIterator[Any]:
    """A good client."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield document_service_pb2_grpc.DocumentServiceStub(channel)


async def until_closed(connection: socket.socket) -> None:
    """Read until the server has closed the connection."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionResetError):
        while await loop.sock_recv(connection, 4096):
            pass


@pytest.mark.parametrize("said", [b"", PREFACE[:10], PREFACE, b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_connection_that_does_not_begin_is_closed(
    server: ServerProcess, said: bytes
) -> None:
    connections = [
        socket.create_connection(("127.0.0.1", server.port), timeout=5.0) for _ in range(10)
    ]
    try:
        for connection in connections:
            connection.sendall(said)
            connection.setblocking(False)
        async with stub_of(server) as stub:
            document = await store(stub, TEXT)
            assert await read_back(stub, document.document_id) == TEXT
        async with asyncio.timeout(20.0):
            await asyncio.gather(*(until_closed(one) for one in connections))
    finally:
        for connection in connections:
            connection.close()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def header_block() -> bytes:
    """Headers of an Upload, in literals without indexing."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/longspan.v1.DocumentService/Upload",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


def end_of_stream(data: bytes) -> bool:
    """True where a HEADERS frame that ends the stream has come: its trailers."""
    while len(data) >= 9:
        length, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
        if kind == 1 and flags & 1:
            return True
        data = data[9 + length :]
    return False


@pytest.mark.parametrize("body", ["none", "drip"])
async def test_a_stream_whose_first_message_never_comes_is_ended(
    server: ServerProcess, body: str
) -> None:
    """Headers only, or a message of which one byte comes now and then."""
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5.0) as connection:
        connection.sendall(PREFACE + SETTINGS + frame(1, 4, 1, header_block()))
        connection.setblocking(False)
        heard, sent = b"", 0
        message = b"\x00" + (1000).to_bytes(4, "big")
        async with asyncio.timeout(20.0):
            while not end_of_stream(heard):
                if body == "drip" and sent < len(message):
                    await loop.sock_sendall(connection, frame(0, 0, 1, message[sent : sent + 1]))
                    sent += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.3):
                        part = await loop.sock_recv(connection, 4096)
                        assert part, "the connection was closed instead of the stream"
                        heard += part


async def test_an_upload_without_commit_is_ended_and_kept(server: ServerProcess) -> None:
    async with stub_of(server) as stub:
        held = [Uploading(stub) for _ in range(10)]
        for uploading in held:
            await uploading.open()
            await uploading.send(TEXT, 0, 500, 500)
        for uploading in held:
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await uploading.hear_to_the_end()
            assert Refusal.of(ended.value).reason == "DEADLINE_EXCEEDED"
            again = Uploading(stub)
            assert await again.open(uploading.upload_id) == 500
            await again.send(TEXT, 500, len(TEXT), 500)
            await again.finish(TEXT)


async def test_an_upload_that_drips_is_served_beside_others(server: ServerProcess) -> None:
    """One byte at a time, each well within the patience: longer than that in all."""
    data = b"slowly"
    async with stub_of(server) as stub:
        dripping = Uploading(stub)
        await dripping.open()
        for place in range(len(data)):
            await dripping.send(data, place, place + 1, 1)
            await store(stub, b"%d. " % place + TEXT)
            await asyncio.sleep(SILENCE_S / 3)
        document = await dripping.finish(data)
        assert await read_back(stub, document.document_id) == data


async def test_an_upload_that_waits_does_not_keep_its_last_chunk(tmp_path: Path) -> None:
    chunk = b"x" * MIB
    with ServerProcess.running(tmp_path, "--encoder", "none") as server:
        process = psutil.Process(server.process.pid)
        async with stub_of(server) as stub:
            await store(stub, chunk)
            before = process.memory_info().rss
            held = [Uploading(stub) for _ in range(40)]
            for uploading in held:
                await uploading.open()
                await uploading.send(chunk, 0, MIB, MIB)
                while uploading.acknowledged < MIB:
                    await uploading.hear()
            grown = process.memory_info().rss - before
            print(f"{grown / len(held) / MIB:.2f} MiB for each waiting upload")
            assert grown < len(held) * MIB / 2
            for uploading in held:
                uploading.call.cancel()


async def test_readers_that_stall_cost_little_memory_and_hold_up_nobody(
    server: ServerProcess,
) -> None:
    data = b"x" * (24 * MIB)
    process = psutil.Process(server.process.pid)
    options = [("grpc.use_local_subchannel_pool", 1)]
    target = f"127.0.0.1:{server.port}"
    async with stub_of(server) as stub:
        document = await store(stub, data)
        request = docs.ReadDocumentRequest(document_id=document.document_id)
        for _ in range(2):
            await read_back(stub, document.document_id)
        before = process.memory_info().rss
        async with grpc.aio.insecure_channel(target, options) as lazy:
            calls = [
                document_service_pb2_grpc.DocumentServiceStub(lazy).ReadDocument(request)
                for _ in range(8)
            ]
            for call in calls:
                await call.read()
            assert await read_back(stub, document.document_id) == data
            grown = process.memory_info().rss - before
            print(f"{grown / len(calls) / MIB:.1f} MiB for each stalled reader")
            assert grown < len(calls) * 3 * MIB, f"{grown >> 20} MiB"
            for call in calls:
                call.cancel()


async def test_a_listener_that_stalls_holds_up_no_worker(tmp_path: Path) -> None:
    """Its answer is longer than what the connection takes; the next caller's is whole."""
    async with generating(tmp_path, stories(), limits={"requests": 8}) as running:
        document = await store(running.documents, TEXT)
        request = docs.GetDocumentRequest(document_id=document.document_id)
        task = prompt(max_tokens=20_000, seed=1)
        generate = pb.GenerateRequest(document_ids=[document.document_id], task=task)
        stalled = running.inference.Generate(generate)
        await stalled.read()
        brief = pb.GenerateRequest(
            document_ids=[document.document_id], task=prompt(max_tokens=20, seed=2)
        )
        written = await hear(running.inference.Generate(brief, timeout=20.0))
        assert written.end.usage.output_tokens <= 20
        await running.documents.GetDocument(request)
        stalled.cancel()
