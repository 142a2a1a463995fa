"""How late health answers while four 20 MB documents upload and tokenise."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
import time
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.server_process import server_process
from benchmarks.texts import long_text
from longspan.v1 import document_service_pb2 as pb
from longspan.v1 import document_service_pb2_grpc, upload_pb2

DOCUMENTS = 4
SIZE_CHARS = 20_000_000
CHUNK_BYTES = 1 << 20
PAUSE_S = 0.01
LONGEST_S = 300.0


def probe(port: int, seconds: float) -> list[float]:
    """Milliseconds of each health check; runs in a process of its own."""
    times = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            started = time.perf_counter()
            with contextlib.suppress(grpc.RpcError):
                stub.Check(health_pb2.HealthCheckRequest(), timeout=60)
                times.append((time.perf_counter() - started) * 1000)
            time.sleep(PAUSE_S)
    return times


async def upload(channel: grpc.aio.Channel, data: bytes) -> float:
    """Upload, wait until everything is tokenised, leave; seconds to the last token."""
    stub: Any = document_service_pb2_grpc.DocumentServiceStub(channel)
    started = time.perf_counter()
    call = stub.Upload()
    await call.write(pb.UploadRequest(header=upload_pb2.UploadHeader(declared_bytes=len(data))))

    async def send() -> None:
        for offset in range(0, len(data), CHUNK_BYTES):
            chunk = upload_pb2.Chunk(offset=offset, data=data[offset : offset + CHUNK_BYTES])
            await call.write(pb.UploadRequest(chunk=chunk))
        commit = upload_pb2.Commit(length=len(data), sha256=hashlib.sha256(data).hexdigest())
        await call.write(pb.UploadRequest(commit=commit))

    sending = asyncio.create_task(send())
    tokens, still = 0, 0
    async for response in call:
        if response.WhichOneof("event") != "progress" or not sending.done():
            continue
        still = still + 1 if response.progress.tokens == tokens else 0
        tokens = response.progress.tokens
        if tokens and still >= 4:
            break
    call.cancel()
    return time.perf_counter() - started


async def load(port: int) -> float:
    """All documents at once; seconds until the last is tokenised."""
    text = long_text(SIZE_CHARS)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        uploads = [
            upload(channel, f"Copy {number}. {text}".encode()) for number in range(DOCUMENTS)
        ]
        return max(await asyncio.gather(*uploads))


def main() -> list[dict[str, object]]:
    """Run the measurement; one row idle, one under load."""
    rows: list[dict[str, object]] = []
    with server_process() as port:
        rows.append({"server": "idle", **summary(probe(port, 3.0))})
        command = [sys.executable, "-m", "benchmarks.health", str(port), str(LONGEST_S)]
        prober = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            seconds = asyncio.run(asyncio.wait_for(load(port), LONGEST_S))
        finally:
            prober.terminate()
            output, _ = prober.communicate()
        times = [float(line) for line in output.split()]
        row = {"server": f"{DOCUMENTS} uploads of 20 MB", **summary(times)}
        rows.append({**row, "tokenised after s": round(seconds, 1)})
    return rows


def summary(times: list[float]) -> dict[str, object]:
    """Count, median, p99 and worst, in milliseconds."""
    ordered = sorted(times)
    return {
        "checks": len(ordered),
        "p50 ms": round(ordered[len(ordered) // 2], 1),
        "p99 ms": round(ordered[int(len(ordered) * 0.99)], 1),
        "max ms": round(ordered[-1], 1),
    }


def print_probe(port: int, seconds: float) -> None:
    """The prober's process: one line a check, as it happens."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for took in probe(port, 0.2):
            print(took, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_probe(int(sys.argv[1]), float(sys.argv[2]))
    else:
        print(json.dumps(main(), indent=1))
