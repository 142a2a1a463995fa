"""p99 of good clients without and with a thousand slow-loris clients, side by side in one run.

A second process holds the slow ones: half are connections that never speak HTTP/2, half are
uploads that send a byte every ten seconds. Phases alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc

from benchmarks.idle_uploads import open_upload
from benchmarks.probing import Ask, health_check, milliseconds, percentile, probe
from benchmarks.server_process import NO_RESULTS, RunningServer, allow_files, running
from longspan.v1 import document_service_pb2 as pb
from longspan.v1 import document_service_pb2_grpc, upload_pb2

SLOW = 1000
CONNECTIONS = 10
DRIP_S = 10.0
ROUNDS = 4
PHASE_S = 8.0
GOOD_CLIENTS = 4
FILES = 4 * SLOW
DOCUMENT = b"The supplier shall pay the fee within thirty days of the invoice.\n" * 500


def storing(channel: grpc.aio.Channel) -> Ask:
    """A good client: uploads 33 kB in one go and hears that they are stored."""
    stub: Any = document_service_pb2_grpc.DocumentServiceStub(channel)
    digest = hashlib.sha256(DOCUMENT).hexdigest()
    messages = [
        pb.UploadRequest(header=upload_pb2.UploadHeader(declared_bytes=len(DOCUMENT))),
        pb.UploadRequest(chunk=upload_pb2.Chunk(offset=0, data=DOCUMENT)),
        pb.UploadRequest(commit=upload_pb2.Commit(length=len(DOCUMENT), sha256=digest)),
    ]

    async def ask() -> object:
        return [event async for event in stub.Upload(iter(messages), timeout=60)][-1]

    return ask


async def hold(target: str) -> None:
    """The second process: be slow until standard input ends."""
    host, _, port = target.rpartition(":")
    silent = [_connect_again(host, int(port)) for _ in range(SLOW // 2)]
    tasks = [asyncio.create_task(one) for one in silent]
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(CONNECTIONS)]
    calls = [await open_upload(channels[number % CONNECTIONS]) for number in range(SLOW // 2)]
    tasks += [asyncio.create_task(_drip(call)) for call in calls]
    print("there", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for channel in channels:
        await channel.close()


async def _connect_again(host: str, port: int) -> None:
    """A connection that says nothing; a new one when the server closes it."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port)
            while await reader.read(1024):
                pass
            writer.close()
        await asyncio.sleep(0.1)


async def _drip(call: Any) -> None:
    """One byte now and then; what the server says is read."""

    async def listen() -> None:
        async for _ in call:
            pass

    listening = asyncio.create_task(listen())
    offset = 49
    try:
        while True:
            await asyncio.sleep(DRIP_S)
            chunk = upload_pb2.Chunk(offset=offset, data=b"x")
            await call.write(pb.UploadRequest(chunk=chunk))
            offset += 1
    finally:
        listening.cancel()


@contextlib.contextmanager
def slow_clients(target: str) -> Iterator[None]:
    """A thousand of them, for the length of the block."""
    command = [sys.executable, "-m", "benchmarks.slow_clients", target]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        time.sleep(1.0)
        yield
        holder.stdin.close()


async def good_clients(target: str) -> dict[str, list[float]]:
    """Seconds of each health check and of each upload."""
    async with grpc.aio.insecure_channel(target) as channel:
        await storing(channel)()
        health, *stored = await asyncio.gather(
            probe(health_check(channel), PHASE_S),
            *(probe(storing(channel), PHASE_S) for _ in range(GOOD_CLIENTS)),
        )
    return {"health": health, "upload": [took for times in stored for took in times]}


def measure(server: RunningServer) -> list[dict[str, object]]:
    """One row a kind of call: p99 without and with, and the factor between them."""
    taken: dict[tuple[str, bool], list[float]] = {}
    for _ in range(ROUNDS):
        for slow in (False, True):
            with slow_clients(server.target) if slow else contextlib.nullcontext():
                for kind, times in asyncio.run(good_clients(server.target)).items():
                    taken.setdefault((kind, slow), []).extend(times)
    rows = []
    for kind in ("health", "upload"):
        without, with_ = (percentile(taken[kind, slow], 0.99) for slow in (False, True))
        rows.append(
            {
                "call": kind,
                "calls": len(taken[kind, False]) + len(taken[kind, True]),
                "p50 ms": milliseconds(percentile(taken[kind, False], 0.5)),
                "p50 ms with slow clients": milliseconds(percentile(taken[kind, True], 0.5)),
                "p99 ms": milliseconds(without),
                "p99 ms with slow clients": milliseconds(with_),
                "factor": round(with_ / without, 2),
            }
        )
    return rows


def main() -> list[dict[str, object]]:
    """Run the measurement."""
    allow_files(FILES)
    with running("--encoder", "none", "--limits.requests", str(2 * SLOW), *NO_RESULTS) as server:
        return measure(server)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        allow_files(FILES)
        asyncio.run(hold(sys.argv[1]))
    else:
        print(main())
