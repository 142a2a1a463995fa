"""Clients, workers and servers are killed at random points of documents; nothing is lost.

``TEST_CUTS`` says how often each kind dies (default once); the seed is printed.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from longspan.v1 import cache_service_pb2, cache_service_pb2_grpc, inference_service_pb2_grpc
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import tenant
from tests.e2e.generation import prompt
from tests.e2e.real_decoders import streaming_decoder
from tests.e2e.workers import ServerProcess, server_process
from tests.robustness.analysing import Analysing
from tests.support.seeds import seeded

CUTS = int(os.environ.get("TEST_CUTS", "1"))
CHUNK_BYTES = 500
PAGE = 256
STEP = PAGE
INTERVAL = PAGE + STEP
"""The page that was not full, and what is computed for as long as the others are loaded."""
STORED_S = 30.0
WIDTH = 6144
"""Of the feed-forward layers: a page takes so long to compute that nobody would rather do that than
load it, on a busy machine either."""
CONTEXT = 16_384
SENTENCES = 200
TASK = prompt("Go on.", max_tokens=16, temperature=0)
KINDS = ("client", "worker", "server")

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """What one death cost.

    Attributes:
        point: the byte before which it happened.
        bytes_again: sent once more.
        tokens_again: computed once more, of those that had been read when their full pages were
            on disk; below zero where more was read after that than was lost.
        text: the answer.
    """

    kind: str
    point: int
    bytes_again: int
    tokens_again: int
    text: str


def document(rng: random.Random) -> bytes:
    """A text that no other begins like."""
    words = ("Supplier", "Customer", "fees", "notice", "term", "data", "loss", "party", "shall")
    lines = (
        f"{rng.randrange(10**6)}. The {' '.join(rng.choices(words, k=8))}.\n"
        for _ in range(SENTENCES)
    )
    return "".join(lines).encode()


@asynccontextmanager
async def stub_of(server: ServerProcess) -> AsyncIterator[Any]:
    """A channel of its own, as another client process has."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield inference_service_pb2_grpc.InferenceServiceStub(channel)


async def undisturbed(server: ServerProcess, data: bytes) -> str:
    """The answer to somebody else, who shares no page with those who are cut."""
    async with stub_of(server) as stub:
        stream = Analysing(stub, TASK, tenant("other"))
        await stream.open()
        await stream.send(data, len(data), CHUNK_BYTES)
        end = await stream.finish(data)
        assert end.usage.cached_tokens == 0
        return stream.text


async def stored(server: ServerProcess, owner: Metadata, pages: int) -> None:
    """Wait until so many pages of a tenant are on disk: a slow disk is behind by more than one."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        caches = cache_service_pb2_grpc.CacheServiceStub(channel)
        deadline = asyncio.get_running_loop().time() + STORED_S
        on_disk = -1
        while on_disk < pages:
            assert asyncio.get_running_loop().time() < deadline, f"{on_disk} of {pages} on disk"
            stats = await caches.Stats(cache_service_pb2.StatsRequest(), metadata=owner)
            on_disk = stats.held.disk_pages
            await asyncio.sleep(0.01)


async def cut(
    server: ServerProcess,
    kind: str,
    owner: Metadata,
    data: bytes,
    rng: random.Random,
    *,
    settled: bool,
) -> Cut:
    """Send up to a random byte; let somebody die; go on to the answer.

    Args:
        settled: what was read is on disk when that happens.
    """
    point = rng.randrange(CHUNK_BYTES, len(data))
    async with stub_of(server) as stub:
        stream = Analysing(stub, TASK, owner)
        await stream.open()
        await stream.send(data, point - CHUNK_BYTES, CHUNK_BYTES)
        read = await stream.settle()
        if settled:
            await stored(server, owner, read // PAGE)
        await stream.send(data, point, CHUNK_BYTES)
        await asyncio.sleep(rng.uniform(0.0, 0.05))
        if kind == "worker":
            [worker] = server.children()
            worker.kill()
            usage = await rest(stream, data)
            return Cut(kind, point, 0, read - usage.cached_tokens, stream.text)
        if kind == "client":
            stream.call.cancel()
        else:
            await server.kill()
            await server.start()
    async with stub_of(server) as stub:
        again = Analysing(stub, TASK, owner)
        await again.open(stream.upload_id)
        bytes_again = stream.sent - again.sent
        usage = await rest(again, data)
        return Cut(kind, point, bytes_again, read - usage.cached_tokens, again.text)


async def rest(stream: Analysing, data: bytes) -> pb.Usage:
    """Send what is missing; what it cost."""
    await stream.send(data, len(data), CHUNK_BYTES)
    return (await stream.finish(data)).usage


@pytest.mark.timeout(60 + 60 * CUTS)
async def test_a_document_that_was_cut_off_is_answered_like_any_other(tmp_path: Path) -> None:
    rng = seeded()
    model = streaming_decoder(
        tmp_path / "model", max_position_embeddings=CONTEXT, intermediate_size=WIDTH
    )
    flags: tuple[str, ...] = ("--encoder", "none", "--model", str(model), "--dtype", "float32")
    flags += (
        "--kv-memory",
        "64MiB",
        "--step-tokens",
        str(STEP),
        "--worker-threads",
        "1",
        "--trust-tenant-metadata",
        "true",
    )
    async with server_process(tmp_path, *flags) as server:
        computed_again = 0
        for number in range(CUTS * len(KINDS)):
            round_, kind = divmod(number, len(KINDS))
            data, owner, settled = document(rng), tenant(f"owner-{number}"), round_ % 2 == 0
            one = await cut(server, KINDS[kind], owner, data, rng, settled=settled)
            print(one.kind, one.point, one.bytes_again, one.tokens_again, settled)
            assert one.text == await undisturbed(server, data)
            assert 0 <= one.bytes_again <= CHUNK_BYTES
            if settled:
                assert one.tokens_again < INTERVAL
                computed_again += one.tokens_again >= PAGE
        # Rarely is a page computed instead of loaded; none is lost.
        assert computed_again <= 1 + CUTS // 5
