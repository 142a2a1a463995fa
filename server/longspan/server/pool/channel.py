"""The command stream to one worker, over its unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc.aio

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.internal.v1 import worker_service_pb2_grpc as pb_grpc
from longspan.server.pool.config import MESSAGE_BYTES

POLL_S = 0.02

# A command, or what makes it when its turn comes to be written; None writes nothing.
Command = pb.ExecuteRequest | Callable[[], pb.ExecuteRequest | None]

_Call = grpc.aio.StreamStreamCall[pb.ExecuteRequest, pb.ExecuteResponse]

_OPTIONS = (
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    # The socket's file appears a moment before the worker accepts on it.
    ("grpc.initial_reconnect_backoff_ms", 100),
)


class CommandStream:
    """Commands in, events out; bound to the running loop.

    Args:
        commands: most that wait to be written; the caller's window keeps it below that.
    """

    def __init__(self, path: Path, *, commands: int) -> None:
        self._path = path
        self._commands: asyncio.Queue[Command] = asyncio.Queue(commands)
        self._channel: grpc.aio.Channel | None = None

    def send(self, command: Command) -> None:
        """Queue a command; they are written in order.

        Raises:
            asyncio.QueueFull: the caller broke its window.
        """
        self._commands.put_nowait(command)

    async def events(self) -> AsyncIterator[pb.Event]:
        """Connect as soon as the socket exists; yield events until the stream ends.

        Raises:
            grpc.aio.AioRpcError: the stream broke.
        """
        while not self._path.exists():  # noqa: ASYNC110 (another process makes it)
            await asyncio.sleep(POLL_S)
        self._channel = grpc.aio.insecure_channel(f"unix:{self._path}", options=_OPTIONS)
        stub: pb_grpc.WorkerServiceAsyncStub = pb_grpc.WorkerServiceStub(self._channel)
        call = stub.Execute(wait_for_ready=True)
        # Not a request iterator: grpc's task that reads one outlives a broken stream.
        writer = asyncio.create_task(self._write(call))
        try:
            async for response in call:
                for event in response.events:
                    yield event
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def close(self) -> None:
        """End the stream and close the channel; safe to call twice."""
        if self._channel is not None:
            await self._channel.close()

    async def _write(self, call: _Call) -> None:
        """Write commands; a broken stream shows in the reading of it."""
        while True:
            command = await self._commands.get()
            made = command if isinstance(command, pb.ExecuteRequest) else command()
            if made is not None:
                await call.write(made)
