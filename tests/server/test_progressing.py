"""When a caller is told how far its request has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from longspan.server.aio import cancel_and_wait
from longspan.server.services import progressing
from longspan.server.services.progressing import Progressing
from longspan.v1 import document_pb2
from tests.pool.harness import until

TICK_S = 0.01


class Told:
    """An ``Outgoing`` that keeps what it is given."""

    def __init__(self) -> None:
        self.totals: list[int] = []

    async def send(self, **event: Any) -> None:
        self.totals.append(event["progress"].bytes_total)


@asynccontextmanager
async def reporting(
    monkeypatch: pytest.MonkeyPatch, silence_s: float
) -> AsyncIterator[tuple[Progressing, Told]]:
    """A request that is reported on."""
    monkeypatch.setattr(progressing, "TICK_S", TICK_S)
    monkeypatch.setattr(progressing, "LONGEST_SILENCE_S", silence_s)
    progress, told = Progressing(lambda: 0), Told()
    running = asyncio.create_task(progress.keep_reporting(told))
    yield progress, told
    await cancel_and_wait(running)


async def test_an_idle_upload_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reporting(monkeypatch, silence_s=3600.0) as (_, told):
        await asyncio.sleep(40 * TICK_S)
        assert told.totals == [0]


async def test_silence_never_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reporting(monkeypatch, silence_s=5 * TICK_S) as (_, told):
        await until(lambda: len(told.totals) >= 4)


async def test_bytes_end_a_pause_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    async with reporting(monkeypatch, silence_s=3600.0) as (progress, told):

        async def rest(_: float) -> None:
            await progress._stirred.wait()

        monkeypatch.setattr(progress, "_rest", rest)
        await asyncio.sleep(10 * TICK_S)
        progress.total_bytes = 7
        progress.stir()
        await until(lambda: told.totals == [0, 7])


async def test_what_is_no_longer_an_upload_is_always_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with reporting(monkeypatch, silence_s=3600.0) as (progress, told):
        progress.stage = document_pb2.STAGE_INDEXING
        await until(lambda: len(told.totals) >= 5)
