"""How late a server answers small calls, asked one after the other from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from longspan.v1 import document_service_pb2 as pb
from longspan.v1 import document_service_pb2_grpc

PAUSE_S = 0.005

Ask = Callable[[], Awaitable[object]]


def health_check(channel: grpc.aio.Channel) -> Ask:
    """Asks for the health."""
    stub: Any = health_pb2_grpc.HealthStub(channel)

    async def ask() -> object:
        return await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)

    return ask


def listing(channel: grpc.aio.Channel) -> Ask:
    """Asks for the first page of documents: one question to the catalog."""
    stub: Any = document_service_pb2_grpc.DocumentServiceStub(channel)

    async def ask() -> object:
        return await stub.ListDocuments(pb.ListDocumentsRequest(page_size=1), timeout=60)

    return ask


async def probe(ask: Ask, seconds: float) -> list[float]:
    """Seconds that each of many questions took."""
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter()
        await ask()
        times.append(time.perf_counter() - started)
        await asyncio.sleep(PAUSE_S)
    return times


def percentile(times: Sequence[float], share: float) -> float:
    """The value that this share of the times does not exceed; 0 where there are none."""
    ordered = sorted(times)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def milliseconds(seconds: float) -> float:
    """Rounded to what a table needs."""
    return round(seconds * 1000, 1)
