"""A worker process whose vectors are hashes: small, quick, and able to fail on demand."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import struct
import sys
import time
from collections.abc import AsyncIterator

import grpc.aio

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.internal.v1 import worker_service_pb2_grpc as pb_grpc

DIMENSION = 8


def vector(text: bytes) -> bytes:
    """The vector of one text: its SHA-256 as eight float32 in [0, 1)."""
    words = struct.unpack("<8I", hashlib.sha256(text).digest())
    return struct.pack("<8f", *(word / 2**32 for word in words))


def _words(text: bytes) -> list[int]:
    return [int.from_bytes(text[at : at + 4], "little") for at in range(0, len(text), 4)]


class Engine(pb_grpc.WorkerServiceServicer):
    """One stream; steps of a few jobs; everything in one event loop."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._events: asyncio.Queue[list[pb.Event]] = asyncio.Queue(1024)
        self._waiting: dict[int, pb.Encode] = {}
        self._running: dict[int, pb.Encode] = {}
        self._arrived = asyncio.Event()
        self._step = 0

    async def Execute(
        self, request_iterator: AsyncIterator[pb.ExecuteRequest], context: object
    ) -> AsyncIterator[pb.ExecuteResponse]:
        tasks = [
            asyncio.create_task(self._read(request_iterator)),
            asyncio.create_task(self._beat()),
            asyncio.create_task(self._engine()),
        ]
        try:
            yield pb.ExecuteResponse(events=[pb.Event(ready=self._ready())])
            while True:
                yield pb.ExecuteResponse(events=await self._events.get())
        finally:
            for task in tasks:
                task.cancel()

    def _ready(self) -> pb.Ready:
        fingerprint = self._options.fingerprint
        if self._options.fingerprint_of_pid:
            fingerprint = str(os.getpid())
        return pb.Ready(
            model="hash",
            fingerprint=fingerprint,
            dtype="float32",
            dimension=DIMENSION,
            max_tokens=4096,
            device="cpu",
        )

    async def _read(self, requests: AsyncIterator[pb.ExecuteRequest]) -> None:
        async for request in requests:
            if request.HasField("encode"):
                self._waiting[request.encode.job_id] = request.encode
                self._arrived.set()
            else:
                await self._cancel(request.cancel.job_id)

    async def _cancel(self, job_id: int) -> None:
        if self._waiting.pop(job_id, None) or self._running.pop(job_id, None):
            event = pb.Event(cancelled=pb.Cancelled(job_id=job_id))
            await self._events.put([event])

    async def _beat(self) -> None:
        while True:
            await self._send_heartbeat()
            await asyncio.sleep(self._options.beat_s)

    async def _send_heartbeat(self) -> None:
        heartbeat = pb.Heartbeat(
            step=self._step,
            busy=bool(self._running),
            jobs=len(self._waiting) + len(self._running),
            running=list(self._running),
        )
        await self._events.put([pb.Event(heartbeat=heartbeat)])

    async def _engine(self) -> None:
        while True:
            await self._arrived.wait()
            first = next(iter(self._waiting.values()), None)
            if first is None:
                self._arrived.clear()
                continue
            await asyncio.sleep(first.max_wait_ms / 1000)
            batch = list(self._waiting)[: self._options.batch]
            self._running = {job_id: self._waiting.pop(job_id) for job_id in batch}
            await self._run_step()

    async def _run_step(self) -> None:
        if self._options.announce:
            await self._send_heartbeat()
            await asyncio.sleep(0.02)
        await self._misbehave()
        await asyncio.sleep(self._options.step_s)
        events = [self._answer(encode) for encode in self._running.values()]
        self._running = {}
        self._step += 1
        await self._events.put(events)

    async def _misbehave(self) -> None:
        tokens = {
            token
            for encode in self._running.values()
            for text in encode.texts
            for token in _words(text)
        }
        if self._options.poison in tokens:
            os.abort()
        if self._options.hang in tokens:
            await asyncio.Event().wait()

    def _answer(self, encode: pb.Encode) -> pb.Event:
        if any(self._options.refuse in _words(text) for text in encode.texts):
            failed = pb.Failed(job_id=encode.job_id, reason="REFUSED", message="as asked")
            return pb.Event(failed=failed)
        vectors = b"".join(vector(text) for text in encode.texts)
        return pb.Event(encoded=pb.Encoded(job_id=encode.job_id, vectors=vectors))


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--step-s", type=float, default=0.0)
    parser.add_argument("--beat-s", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--poison", type=int, default=-1)
    parser.add_argument("--hang", type=int, default=-1)
    parser.add_argument("--refuse", type=int, default=-1)
    parser.add_argument("--announce", action="store_true")
    parser.add_argument("--fingerprint", default="f00d")
    parser.add_argument("--fingerprint-of-pid", action="store_true")
    parser.add_argument("--exit-status", type=int)
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--starts", help="a file that counts starts")
    parser.add_argument("--memory-from", type=int, help="only the first and those from it have any")
    return parser.parse_args()


async def serve(options: argparse.Namespace) -> None:
    """Listen until standard input ends."""
    server = grpc.aio.server()
    pb_grpc.add_WorkerServiceServicer_to_server(Engine(options), server)
    server.add_insecure_port(f"unix:{options.socket}")
    await server.start()
    await asyncio.to_thread(sys.stdin.buffer.read)
    await server.stop(0)


def _has_memory(options: argparse.Namespace) -> bool:
    with open(options.starts, "a+") as file:
        file.write("x")
        start = file.tell()
    return start == 1 or start >= options.memory_from


def main() -> None:
    """Run one worker."""
    options = parse()
    if options.exit_status is not None:
        print("loading weights", file=sys.stderr)
        print("model not usable: no such file", file=sys.stderr)
        sys.exit(options.exit_status)
    if options.starts is not None and not _has_memory(options):
        print("out of memory: 2 GiB for KV pages, cpu has 1 GiB free", file=sys.stderr)
        sys.exit(4)
    if options.never_ready:
        time.sleep(3600)
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
