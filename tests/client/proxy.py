"""A TCP proxy that cuts connections after chosen numbers of bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress


class CuttingProxy:
    """Forwards to ``target``; each connection ends where the next of ``cuts`` says.

    Args:
        target: host and port.
        cuts: client bytes after which a connection is cut; later connections are whole.
    """

    def __init__(self, target: str, cuts: Iterable[int]) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._cuts = deque(cuts)
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the client."""
        self.connections += 1
        budget_bytes = self._cuts.popleft() if self._cuts else None
        up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
        ways = [
            asyncio.create_task(_copy(reader, up_writer, budget_bytes)),
            asyncio.create_task(_copy(up_reader, writer, None)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            for end in (writer, up_writer):
                end.transport.abort()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget_bytes: int | None
) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            if budget_bytes is not None and len(data) >= budget_bytes:
                writer.write(data[:budget_bytes])
                await writer.drain()
                return
            budget_bytes = None if budget_bytes is None else budget_bytes - len(data)
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def cutting_proxy(
    target: str, cuts: Iterable[int]
) -> AsyncIterator[tuple[CuttingProxy, str]]:
    """The proxy and its own target."""
    proxy = CuttingProxy(target, cuts)
    connections: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await proxy.serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            connections.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield proxy, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in connections.copy():
            task.cancel()
        if connections:
            await asyncio.wait(connections.copy())
