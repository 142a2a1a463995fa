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
    """Takes calls of registered methods as before, and all others itself."""

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
