"""Writes to a stream without losing the server's verdict."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.message import Message

# What a write raises when the call is over; who reads the call learns why.
OVER = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)


async def write(call: Any, message: Message) -> None:
    """Send one message on a call whose ``wait_for_connection`` has returned.

    ``call.write`` of grpc.aio (seen in 1.85) puts its own INTERNAL in the place of the status
    when a write fails, and a write fails whenever the server refuses an upload that is being
    sent: the client would never learn why. The send beneath it does not touch the status.

    Raises:
        OVER: the call is over.
    """
    core = getattr(call, "_cython_call", None)
    if core is None:
        await call.write(message)
    else:
        await core.send_serialized_message(message.SerializeToString())
