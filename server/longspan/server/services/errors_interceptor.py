"""The RPC edge: every exception leaves as a rich status, none as a traceback."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from longspan.server.errors import LongspanError, too_many_files
from longspan.server.services.endings import end_with
from longspan.server.services.handlers import Behaviour, rewritten
from longspan.server.services.statuses import fault_status, to_status
from longspan.server.services.wire import Malformed, malformed

log = logging.getLogger(__name__)


class ErrorsInterceptor(grpc.aio.ServerInterceptor):
    """Wraps handlers written as coroutines that read and write through the context."""

    async def intercept_service(
        self, continuation: Any, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Replace the handler's behaviour by a guarded one."""
        return await rewritten(continuation, handler_call_details, _guard, _tolerant)


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Hands on what is not a message as ``Malformed``: gRPC itself would only log it."""

    def tolerant(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return Malformed()

    return tolerant


def _guard(behaviour: Behaviour, method: str) -> Behaviour:
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            if isinstance(request, Malformed):
                raise malformed()
            return await behaviour(request, context)
        except asyncio.CancelledError:
            raise
        except LongspanError as error:
            status = to_status(error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            if _nobody_listens(error):
                log.debug("/%s: the client is gone, or the server stopped", method)
                raise asyncio.CancelledError from error
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                log.warning("/%s refused: %s", method, error)
                status = to_status(too_many_files())
            else:
                error_id, status = fault_status()
                log.exception(
                    "/%s failed, error id %s", method, error_id, extra={"error_id": error_id}
                )
        try:
            await end_with(context, status)
        except grpc.aio.BaseError as error:
            if isinstance(error, grpc.aio.AbortError) or not _nobody_listens(error):
                raise
            # As after a deadline: the client was gone before it could be told.
            raise asyncio.CancelledError from error

    return guarded


def _nobody_listens(error: Exception) -> bool:
    """True when an operation on the stream failed, so that no status can reach anybody."""
    return isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError)
