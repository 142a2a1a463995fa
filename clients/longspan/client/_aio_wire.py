"""One channel of ``grpc.aio``: connects, reads with timeouts, translates errors."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import grpc

from longspan.client._config import RetryPolicy, Timeout
from longspan.client._credentials import Metadata, channel_options
from longspan.client._deadline import Deadline
from longspan.client._errors import translate
from longspan.client._exceptions import (
    ConnectionLost,
    DeadlineExceeded,
    LongspanError,
    ServerUnavailable,
)
from longspan.client._health import METHOD, as_it_is
from longspan.client._retry import Patience
from longspan.client._tracing import trace_metadata
from longspan.v1 import (
    cache_service_pb2_grpc,
    document_service_pb2_grpc,
    inference_service_pb2_grpc,
)

Result = TypeVar("Result")


class AsyncWire:
    """What every call of an ``AsyncClient`` goes through."""

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        metadata: Metadata,
        timeout: Timeout,
        retry: RetryPolicy,
    ) -> None:
        # A handshake that fails looks like a server that is not there: its errors are the log's.
        self._target = target if credentials is None else f"{target} over TLS"
        self._timeout = timeout
        self._retry = retry
        self._connected = False
        self._metadata = metadata
        self.channel = (
            grpc.aio.insecure_channel(target, options=channel_options(target))
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=channel_options(target))
        )
        self.documents = document_service_pb2_grpc.DocumentServiceStub(self.channel)
        self.inference = inference_service_pb2_grpc.InferenceServiceStub(self.channel)
        self.caches = cache_service_pb2_grpc.CacheServiceStub(self.channel)
        self.health = self.channel.unary_unary(METHOD, as_it_is, as_it_is)

    @property
    def metadata(self) -> Metadata:
        """What goes with a call that begins now, its place in the caller's trace included."""
        return (*self._metadata, *trace_metadata())

    def deadline(self) -> Deadline:
        """The end of a call that begins now."""
        return Deadline.after(self._timeout.total, time.monotonic())

    def patience(self) -> Patience:
        """The tries of a call that begins now."""
        return Patience(self._retry)

    async def connect(self, deadline: Deadline) -> float | None:
        """Wait for a connection; returns the seconds left for the call.

        Raises:
            ServerUnavailable: there is none in time.
        """
        if not self._connected:
            try:
                async with asyncio.timeout(self._timeout.connect):
                    await self.channel.channel_ready()
            except TimeoutError:
                raise ServerUnavailable(
                    f"no server answers at {self._target} within {self._timeout.connect:g} s"
                ) from None
            self._connected = True
        return deadline.remaining_s(time.monotonic())

    async def pause(self, patience: Patience, error: LongspanError) -> None:
        """Wait before the next try.

        Raises:
            LongspanError: ``error``, when there is none.
        """
        await asyncio.sleep(patience.delay_s(error, time.monotonic(), jitter=random.random()))

    async def retrying(self, attempt: Callable[[Deadline], Awaitable[Result]]) -> Result:
        """The result of a call that may be repeated."""
        deadline, patience = self.deadline(), self.patience()
        while True:
            try:
                return await attempt(deadline)
            except LongspanError as error:
                await self.pause(patience, error)

    async def unary(
        self, method: Any, request: Any, deadline: Deadline, *, is_short: bool = True
    ) -> Any:
        """One answer to one request; one that is not short has all the time until the deadline.

        Raises:
            LongspanError: the call failed.
        """
        remaining_s = await self.connect(deadline)
        idle_s = self._timeout.idle if is_short else None
        limits_s = [one for one in (remaining_s, idle_s) if one is not None]
        try:
            return await method(
                request, timeout=min(limits_s, default=None), metadata=self.metadata
            )
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None

    async def receive(self, call: Any) -> AsyncGenerator[Any, None]:
        """The responses of a stream; leaving it cancels the call.

        Raises:
            LongspanError: the call failed.
            DeadlineExceeded: nothing came for too long.
        """
        try:
            while (response := await self._read(call)) is not grpc.aio.EOF:
                yield response
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channel; running calls end."""
        await self.channel.close()

    async def _read(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout.idle):
                return await call.read()
        except TimeoutError:
            raise DeadlineExceeded(
                f"nothing came from the server for {self._timeout.idle:g} s"
            ) from None
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None

    def _failed(self, failure: grpc.aio.AioRpcError) -> LongspanError:
        error = translate(failure)
        if isinstance(error, ConnectionLost):
            self._connected = False
        return error
