"""gRPC's server, which one call with a path that is not UTF-8 would end.

``grpc.aio`` reads the path of a call whose method is not registered in the loop that serves all
calls, and an exception there shuts the server down (grpcio 1.85). Every method of ours is
registered, so a call without one is refused here, and nobody reads its path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server

UNREAD = "/unknown"


class _Core(cygrpc.AioServer):  # type: ignore[misc]
    """Takes calls of registered methods as before, and all others itself.

    Attributes:
        failed: has the error by which the loop that takes calls has ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *arguments: Any) -> None:
        super().__init__(loop, *arguments)
        self.failed: asyncio.Future[BaseException] = loop.create_future()

    async def _server_main_loop(self, started: asyncio.Future[None]) -> None:
        try:
            await super()._server_main_loop(started)
        except Exception as error:
            # The edge of a task of gRPC's own; who waits for its end waits for all calls to end.
            if not self.failed.done():
                self.failed.set_result(error)
            raise

    def _make_request_call_future(self, method: bytes | None) -> Any:
        if method is not None:
            return super()._make_request_call_future(method)
        return asyncio.get_running_loop().create_task(self._refuse_unknown())

    async def _refuse_unknown(self) -> None:
        """Answer ``UNIMPLEMENTED``, until the server stops and its error ends this."""
        loop = asyncio.get_running_loop()
        nothing = cygrpc._MethodResolver([], {})
        # The loop itself holds tasks by weak references.
        refusing: set[asyncio.Task[None]] = set()
        while True:
            state = await self._request_call()
            refusal = cygrpc._handle_rpc(UNREAD, nothing, (), state, loop, False)
            task = loop.create_task(cygrpc._schedule_rpc_coro(refusal, state, loop, UNREAD))
            refusing.add(task)
            task.add_done_callback(refusing.discard)


class _Server(_server.Server):
    def __init__(
        self,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        options: Sequence[tuple[str, int]],
        maximum_concurrent_rpcs: int | None,
    ) -> None:
        # In place of what it does itself, which is to make a ``cygrpc.AioServer``.
        self._loop = cygrpc.get_working_loop()
        self._server = _Core(
            self._loop, None, (), tuple(interceptors), tuple(options), maximum_concurrent_rpcs
        )

    @property
    def failed(self) -> asyncio.Future[BaseException]:
        """See ``_Core``."""
        failed: asyncio.Future[BaseException] = self._server.failed
        return failed


def grpc_server(
    options: Sequence[tuple[str, int]],
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    maximum_concurrent_rpcs: int | None = None,
) -> grpc.aio.Server:
    """What ``grpc.aio.server`` makes; it serves registered methods alone."""
    if not hasattr(cygrpc.AioServer, "_make_request_call_future"):
        # Another version: its own server, whatever that makes of such paths.
        return grpc.aio.server(
            None, None, interceptors, options, maximum_concurrent_rpcs=maximum_concurrent_rpcs
        )
    server: Any = _Server(interceptors, options, maximum_concurrent_rpcs)
    return server  # type: ignore[no-any-return]


async def failure(server: grpc.aio.Server) -> BaseException:
    """Wait until a server takes no more calls though nobody has stopped it; may be cancelled."""
    if isinstance(server, _Server):
        failed: BaseException = await asyncio.shield(server.failed)
        return failed
    # Another version's: its crash is told when all calls have ended.
    try:
        await asyncio.shield(asyncio.ensure_future(server.wait_for_termination()))
    except Exception as error:
        return error
    never: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    return await never
