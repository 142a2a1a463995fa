"""Runs one call through either client, so that both are tested alike."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any

from longspan.client import (
    Answer,
    AsyncClient,
    Client,
    Document,
    Event,
    RetryPolicy,
    Source,
    Task,
    Timeout,
)

QUICK = RetryPolicy(attempts=8, budget_s=20, backoff_s=0.01, max_backoff_s=0.1)


class Caller(Enum):
    """Which of the two clients."""

    ASYNC = "async"
    SYNC = "sync"

    async def upload(self, target: str, source: Source, **options: Any) -> Document:
        """``upload`` with a client of its own."""
        if self is Caller.ASYNC:
            async with AsyncClient(target, retry=QUICK) as client:
                return await client.upload(source, **options)

        def blocking() -> Document:
            with Client(target, retry=QUICK) as client:
                return client.upload(source, **options)

        return await asyncio.to_thread(blocking)

    async def ask(
        self, target: str, question: str = "?", timeout: Timeout | None = None
    ) -> tuple[list[Event], Answer]:
        """``ask`` about a document ``doc_1``: the events and the answer."""
        if self is Caller.ASYNC:
            async with (
                AsyncClient(target, retry=QUICK, timeout=timeout) as client,
                client.ask([], question) as stream,
            ):
                events = [event async for event in stream]
                return events, await stream.result()

        def blocking() -> tuple[list[Event], Answer]:
            with (
                Client(target, retry=QUICK, timeout=timeout) as client,
                client.ask([], question) as stream,
            ):
                return list(stream), stream.result()

        return await asyncio.to_thread(blocking)

    async def analyze(self, target: str, source: Source, task: Task) -> tuple[list[Event], Answer]:
        """``analyze``: the events and the answer."""
        if self is Caller.ASYNC:
            async with (
                AsyncClient(target, retry=QUICK) as client,
                client.analyze(source, task) as stream,
            ):
                events = [event async for event in stream]
                return events, await stream.result()

        def blocking() -> tuple[list[Event], Answer]:
            with (
                Client(target, retry=QUICK) as client,
                client.analyze(source, task) as stream,
            ):
                return list(stream), stream.result()

        return await asyncio.to_thread(blocking)
