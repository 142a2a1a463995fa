"""A real worker process on a real unix socket, and a client for its stream."""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.internal.v1 import worker_service_pb2_grpc as pb_grpc
from longspan.worker.limits import MESSAGE_BYTES
from tests.support.template import ForkedPopen

START_S = 60.0
EVENT_S = 20.0
STREAM_GONE_S = 1.0
SHORT = struct.pack("<3I", 2023, 3820, 3443)
LONG = struct.pack("<254I", *range(2000, 2254))


class Worker:
    """One process.

    Args:
        folder: of its socket.
        model: what it serves.
        arguments: more of them.
        afresh: started as a server starts it, not forked from the tests' template.

    Attributes:
        process: its handle; standard input and error are pipes.
        socket: where it serves.
    """

    def __init__(self, folder: Path, model: str, *arguments: str, afresh: bool = False) -> None:
        self.socket = folder / "worker.sock"
        command = ["--socket", str(self.socket), "--model", model, "--threads", "1", *arguments]
        # A fork cannot use a GPU that its template has looked at.
        self.process: subprocess.Popen[str] | ForkedPopen = (
            _popen(command) if afresh or "--device" in arguments else ForkedPopen(command)
        )

    def wait_ready(self) -> None:
        """Wait until the socket is there."""
        deadline = time.monotonic() + START_S
        while not self.socket.exists():
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def errors(self) -> str:
        """What the ended process wrote to standard error."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def close(self) -> None:
        """Kill it, if it lives."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stderr):
            assert pipe is not None
            pipe.close()


def _popen(arguments: Sequence[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "longspan.worker", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def started(model: str, *arguments: str, afresh: bool = False) -> Iterator[Worker]:
    """A process in its own folder, killed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="longspan-"))  # short: a socket's path is bounded
    worker = Worker(folder, model, *arguments, afresh=afresh)
    try:
        yield worker
    finally:
        worker.close()
        shutil.rmtree(folder)


class Stream:
    """One Execute stream.

    Attributes:
        call: the raw gRPC call.
        heartbeats: all heartbeats read so far.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call = pb_grpc.WorkerServiceStub(channel).Execute()
        self.heartbeats: list[pb.Heartbeat] = []
        self._events: list[pb.Event] = []

    async def encode(self, job_id: int, texts: Sequence[bytes], max_wait_ms: int = 0) -> None:
        """Send a job."""
        encode = pb.Encode(job_id=job_id, texts=texts, max_wait_ms=max_wait_ms)
        await self.call.write(pb.ExecuteRequest(encode=encode))

    async def cancel(self, job_id: int) -> None:
        """Send a cancel."""
        await self.call.write(pb.ExecuteRequest(cancel=pb.Cancel(job_id=job_id)))

    async def next_event(self) -> pb.Event:
        """Any event."""
        async with asyncio.timeout(EVENT_S):
            while not self._events:
                response = await self.call.read()
                assert isinstance(response, pb.ExecuteResponse), "the stream ended"
                self._events += response.events
        event = self._events.pop(0)
        if event.WhichOneof("kind") == "heartbeat":
            self.heartbeats.append(event.heartbeat)
        return event

    async def next_end(self) -> pb.Event:
        """The next event that is no heartbeat."""
        while (event := await self.next_event()).WhichOneof("kind") == "heartbeat":
            pass
        return event

    async def next_heartbeat(self) -> pb.Heartbeat:
        """The next event, which must be a heartbeat."""
        event = await self.next_event()
        assert event.WhichOneof("kind") == "heartbeat", event
        return event.heartbeat

    async def until_running(self, job_id: int) -> None:
        """Wait for a heartbeat that names the job as running."""
        while job_id not in (await self.next_heartbeat()).running:
            pass


@asynccontextmanager
async def opened(worker: Worker) -> AsyncIterator[tuple[Stream, pb.Ready]]:
    """A stream and the Ready that opens it; waits for an earlier stream to be gone."""
    options = [("grpc.max_receive_message_length", MESSAGE_BYTES)]
    async with grpc.aio.insecure_channel(f"unix:{worker.socket}", options=options) as channel:
        stream, ready = await _open(channel)
        try:
            yield stream, ready
        finally:
            stream.call.cancel()


async def _open(channel: grpc.aio.Channel) -> tuple[Stream, pb.Ready]:
    deadline = time.monotonic() + STREAM_GONE_S
    while True:
        stream = Stream(channel)
        try:
            first = await stream.next_event()
        except grpc.aio.AioRpcError as error:
            # An earlier stream is not gone yet, or the socket is there and nobody listens yet.
            early = (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.UNAVAILABLE)
            if error.code() not in early or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
            continue
        assert first.WhichOneof("kind") == "ready"
        return stream, first.ready
