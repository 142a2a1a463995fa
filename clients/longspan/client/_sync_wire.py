"""One channel of ``grpc``: connects, reads with timeouts, translates errors."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import grpc

from longspan.client._config import RetryPolicy, Timeout
from longspan.client._credentials import Metadata, channel_options
from longspan.client._deadline import Deadline
from longspan.client._errors import translate
from longspan.client._exceptions import (
    ClientClosed,
    ConnectionLost,
    DeadlineExceeded,
    LongspanError,
    ServerUnavailable,
)
from longspan.client._health import METHOD, REQUEST, as_it_is
from longspan.client._retry import Patience
from longspan.client._tracing import trace_metadata
from longspan.client._watchdog import Watch, Watchdog
from longspan.v1 import (
    cache_service_pb2_grpc,
    document_service_pb2_grpc,
    inference_service_pb2_grpc,
)

Result = TypeVar("Result")


class SyncWire:
    """What every call of a ``Client`` goes through."""

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
        self._closed = threading.Event()
        self._metadata = metadata
        self.channel = (
            grpc.insecure_channel(target, options=channel_options(target))
            if credentials is None
            else grpc.secure_channel(target, credentials, options=channel_options(target))
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

    def connect(self, deadline: Deadline) -> float | None:
        """Wait for a connection; returns the seconds left for the call.

        Raises:
            ServerUnavailable: there is none in time.
        """
        if not self._connected:
            self._ping()
            self._connected = True
        return deadline.remaining_s(time.monotonic())

    def pause(self, patience: Patience, error: LongspanError) -> None:
        """Wait before the next try.

        Raises:
            LongspanError: ``error``, when there is none.
            ClientClosed: the client was closed meanwhile.
        """
        delay_s = patience.delay_s(error, time.monotonic(), jitter=random.random())
        if self._closed.wait(delay_s):
            raise ClientClosed("the client is closed")

    def retrying(self, attempt: Callable[[Deadline], Result]) -> Result:
        """The result of a call that may be repeated."""
        deadline, patience = self.deadline(), self.patience()
        while True:
            try:
                return attempt(deadline)
            except LongspanError as error:
                self.pause(patience, error)

    def unary(self, method: Any, request: Any, deadline: Deadline, *, is_short: bool = True) -> Any:
        """One answer to one request; one that is not short has all the time until the deadline.

        Raises:
            LongspanError: the call failed.
        """
        remaining_s = self.connect(deadline)
        idle_s = self._timeout.idle if is_short else None
        limits_s = [one for one in (remaining_s, idle_s) if one is not None]
        try:
            return method(request, timeout=min(limits_s, default=None), metadata=self.metadata)
        except grpc.RpcError as error:
            raise self._failed(error) from None

    def receive(self, call: Any) -> Generator[Any, None, None]:
        """The responses of a stream; leaving it cancels the call.

        Raises:
            LongspanError: the call failed.
            DeadlineExceeded: nothing came for too long.
        """
        try:
            watchdog = Watchdog(self._timeout.idle, call.cancel)
            with watchdog.running():
                while (response := self._read(call, watchdog)) is not None:
                    yield response
        finally:
            call.cancel()

    def close(self) -> None:
        """Close the channel; running calls end."""
        self._closed.set()
        self.channel.close()

    def _ping(self) -> None:
        # Any answer shows a connection. grpc's own channel_ready_future leaves a polling
        # thread behind, which raises when the channel is closed soon after.
        connect_s = self._timeout.connect
        try:
            self.health(REQUEST, timeout=connect_s, metadata=self.metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            failure = self._failed(error)
            if isinstance(failure, ConnectionLost | DeadlineExceeded):
                raise ServerUnavailable(
                    f"no server answers at {self._target} within {connect_s:g} s"
                ) from None
            if isinstance(failure, ClientClosed):
                raise failure from None

    def _read(self, call: Any, watchdog: Watchdog) -> Any:
        try:
            with watchdog.waiting():
                return next(call, None)
        except grpc.RpcError as error:
            if watchdog.state is Watch.EXPIRED:
                raise DeadlineExceeded(
                    f"nothing came from the server for {self._timeout.idle:g} s"
                ) from None
            raise self._failed(error) from None

    def _failed(self, failure: Any) -> LongspanError:
        if self._closed.is_set():
            return ClientClosed("the client was closed during the call")
        error = translate(failure)
        if isinstance(error, ConnectionLost):
            self._connected = False
        return error
