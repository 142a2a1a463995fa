"""Ten thousand idle uploads: how long to open, what each costs, how late others are answered.

A second process opens them over several connections, sends a first chunk on each, and is silent
then. The server has neither encoder nor decoder: only its streams are measured.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import grpc

from benchmarks.probing import health_check, listing, milliseconds, percentile, probe
from benchmarks.server_process import NO_RESULTS, RunningServer, allow_files, running
from longspan.v1 import document_service_pb2 as pb
from longspan.v1 import document_service_pb2_grpc, upload_pb2

STREAMS = 10_000
CONNECTIONS = 20
# Header and first chunk of so many streams are on their way at once.
OPENING = 200
PROBE_S = 10.0
SETTLE_S = 2.0
SILENCE_S = 600
FILES = STREAMS + 4_000
TEXT = b"The first line of a document whose rest is late.\n"


async def hold(target: str, streams: int, connections: int) -> None:
    """The second process: open, say so, keep listening until standard input ends."""
    channels = [grpc.aio.insecure_channel(target, options=_options()) for _ in range(connections)]
    lanes = asyncio.Semaphore(OPENING)
    started = time.perf_counter()

    async def begin(number: int) -> Any:
        async with lanes:
            return await open_upload(channels[number % connections])

    calls = await asyncio.gather(*(begin(number) for number in range(streams)))
    print(time.perf_counter() - started, flush=True)
    listening = [asyncio.create_task(_listen(call)) for call in calls]
    await asyncio.to_thread(sys.stdin.read)
    broken = sum(call.done() for call in calls)
    print(broken, flush=True)
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    for channel in channels:
        await channel.close()


async def open_upload(channel: grpc.aio.Channel) -> Any:
    """A stream that has been accepted and has sent one chunk."""
    stub: Any = document_service_pb2_grpc.DocumentServiceStub(channel)
    call = stub.Upload()
    await call.write(pb.UploadRequest(header=upload_pb2.UploadHeader(title="idle")))
    while (await call.read()).WhichOneof("event") != "accepted":
        pass
    await call.write(pb.UploadRequest(chunk=upload_pb2.Chunk(offset=0, data=TEXT)))
    return call


async def _listen(call: Any) -> None:
    async for _ in call:
        pass


def _options() -> list[tuple[str, int]]:
    return [("grpc.use_local_subchannel_pool", 1)]


async def latencies(target: str) -> dict[str, object]:
    """p99 of both small calls, on a connection of their own."""
    async with grpc.aio.insecure_channel(target, options=_options()) as channel:
        await health_check(channel)()
        health, list_ = await asyncio.gather(
            probe(health_check(channel), PROBE_S), probe(listing(channel), PROBE_S)
        )
    return {
        "health p99 ms": milliseconds(percentile(health, 0.99)),
        "list p50 ms": milliseconds(percentile(list_, 0.5)),
        "list p99 ms": milliseconds(percentile(list_, 0.99)),
        "list max ms": milliseconds(max(list_)),
    }


def measure(server: RunningServer) -> list[dict[str, object]]:
    """One row without and one with the streams."""
    rows: list[dict[str, object]] = [{"idle uploads": 0, **asyncio.run(latencies(server.target))}]
    before = server.rss_bytes
    command = [sys.executable, "-m", "benchmarks.idle_uploads", server.target]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        opened_s = float(holder.stdout.readline())
        time.sleep(SETTLE_S)
        grown = server.rss_bytes - before
        cpu_s, began = server.cpu_s, time.monotonic()
        row = {"idle uploads": STREAMS, **asyncio.run(latencies(server.target))}
        row["server CPU %"] = round(100 * (server.cpu_s - cpu_s) / (time.monotonic() - began))
        row["open s"] = round(opened_s, 1)
        row["KiB a stream"] = round(grown / STREAMS / 1024, 1)
        holder.stdin.close()
        row["broken"] = int(holder.stdout.readline())
    return [*rows, row]


def main() -> list[dict[str, object]]:
    """Run the measurement."""
    allow_files(FILES)
    limits = ("--limits.requests", str(STREAMS + 1000), "--limits.chunk-wait-s", str(SILENCE_S))
    with running("--encoder", "none", *limits, *NO_RESULTS) as server:
        return measure(server)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        allow_files(FILES)
        asyncio.run(hold(sys.argv[1], STREAMS, CONNECTIONS))
    else:
        print(main())
