"""The SDK against a real server that is killed while a document goes up."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from longspan.client import AsyncClient, Client, Document, RetryPolicy
from tests.support.process import ServerProcess

SIZE_BYTES = 3_000_000
CHUNK_BYTES = 100_000
PATIENT = RetryPolicy(attempts=40, budget_s=40.0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def document() -> bytes:
    words = [f"word{number:05d}" for number in range(SIZE_BYTES // 10)]
    return " ".join(words).encode()[:SIZE_BYTES]


class Restarting:
    """A server that can be killed and started again on the same port and data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.port = free_port()

    def __enter__(self) -> Restarting:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def start(self) -> None:
        running = ServerProcess.running(self._folder, "--encoder", "none", port=self.port)
        self.server = self._stack.enter_context(running)

    def kill_and_restart(self) -> None:
        self.server.process.kill()
        self.server.process.wait()
        self.start()


def restart_after(server: Restarting, chunks: list[bytes], at: int) -> Iterator[bytes]:
    for number, chunk in enumerate(chunks):
        if number == at:
            killing = threading.Thread(target=server.kill_and_restart)
            killing.start()
            yield chunk
            killing.join()
        else:
            yield chunk


def pieces(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]


def check(document: Document, data: bytes) -> None:
    assert document.size_bytes == len(data)
    assert document.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_sync_client_resumes_after_kill_9(tmp_path: Path, seed: int) -> None:
    data = document()
    at = random.Random(seed).randrange(2, len(pieces(data)))
    with (
        Restarting(tmp_path) as server,
        Client(f"127.0.0.1:{server.port}", retry=PATIENT) as client,
    ):
        stored = client.upload(restart_after(server, pieces(data), at), title="killed")
        check(stored, data)
        assert client.read(stored) == data


@pytest.mark.parametrize("seed", [3, 4])
async def test_the_async_client_resumes_after_kill_9(tmp_path: Path, seed: int) -> None:
    data = document()
    at = random.Random(seed).randrange(2, len(pieces(data)))

    async def source(server: Restarting) -> AsyncIterator[bytes]:
        for number, chunk in enumerate(pieces(data)):
            if number == at:
                await asyncio.to_thread(server.kill_and_restart)
            yield chunk

    with Restarting(tmp_path) as server:
        async with AsyncClient(f"127.0.0.1:{server.port}", retry=PATIENT) as client:
            stored = await client.upload(source(server), title="killed")
            check(stored, data)
            assert await client.read(stored) == data
