"""Upload over loopback: MB/s by chunk size, and the server's CPU time for it.

No model is attached; documents are spooled, hashed, checked and synchronised as in production.
"""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import time
from typing import Any

import grpc

from benchmarks.server_process import NO_RESULTS, RunningServer, running
from longspan.v1 import document_service_pb2 as pb
from longspan.v1 import document_service_pb2_grpc, upload_pb2

SIZE_BYTES = 64 << 20
ROUNDS = 5
CHUNKS = (64 << 10, 256 << 10, 1 << 20)


def document(number: int) -> bytes:
    """64 MiB of text that no other document shares."""
    line = f"Document {number}: the quick brown fox jumps over the lazy dog, again and again.\n"
    return (line.encode() * (SIZE_BYTES // len(line) + 1))[:SIZE_BYTES]


async def upload(port: int, data: bytes, sha256: str, chunk_bytes: int) -> float:
    """Seconds from the header to Stored."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = document_service_pb2_grpc.DocumentServiceStub(channel)
        started = time.perf_counter()
        call = stub.Upload()
        header = upload_pb2.UploadHeader(title="benchmark", declared_bytes=len(data))
        await call.write(pb.UploadRequest(header=header))

        async def send() -> None:
            for offset in range(0, len(data), chunk_bytes):
                piece = data[offset : offset + chunk_bytes]
                chunk = upload_pb2.Chunk(offset=offset, data=piece)
                await call.write(pb.UploadRequest(chunk=chunk))
            commit = upload_pb2.Commit(length=len(data), sha256=sha256)
            await call.write(pb.UploadRequest(commit=commit))
            await call.done_writing()

        sending = asyncio.create_task(send())
        async for response in call:
            if response.WhichOneof("event") == "stored":
                elapsed = time.perf_counter() - started
        await sending
        return elapsed


async def measure(server: RunningServer) -> list[dict[str, object]]:
    """One row a chunk size: the best of several rounds, CPU seconds of all."""
    rows: list[dict[str, object]] = []
    number = 0
    for chunk_bytes in CHUNKS:
        times = []
        cpu_s = server.cpu_s
        for _ in range(ROUNDS):
            number += 1
            data = document(number)
            sha256 = hashlib.sha256(data).hexdigest()
            times.append(await upload(server.port, data, sha256, chunk_bytes))
        cpu_s = server.cpu_s - cpu_s
        rows.append(
            {
                "chunk KiB": chunk_bytes >> 10,
                "MB/s": round(SIZE_BYTES / 1e6 / min(times), 1),
                "MB/s median": round(SIZE_BYTES / 1e6 / statistics.median(times), 1),
                "server CPU s/GB": round(cpu_s / (ROUNDS * SIZE_BYTES / 1e9), 2),
            }
        )
    return rows


def main() -> list[dict[str, object]]:
    """Run the measurement."""
    with running("--encoder", "none", *NO_RESULTS) as server:
        return asyncio.run(measure(server))


if __name__ == "__main__":
    print(main())
