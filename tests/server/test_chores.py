"""What a server does beside its calls, and what becomes of it when that ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from longspan.server import app
from longspan.server.errors import ServingFailed
from longspan.server.metrics.sampler import Sampler
from tests.metrics.scrape import scraped
from tests.support.serving import serving


async def test_a_server_whose_chore_ends_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sweep(*_: object) -> None:
        await asyncio.sleep(0.05)
        raise ZeroDivisionError

    monkeypatch.setattr(app, "_sweep", sweep)
    async with serving(tmp_path, encoder="none") as running:
        with pytest.raises(ServingFailed, match=r"sweep of uploads has ended: ZeroDivisionError"):
            await asyncio.wait_for(running.server.failure(), 10.0)


async def test_waiting_for_the_end_of_a_server_may_be_given_up(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none") as running:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(running.server.failure(), 0.05)


async def test_a_look_that_fails_is_not_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks, sample = [], Sampler.sample

    async def once_broken(sampler: Sampler) -> None:
        looks.append(sampler)
        if len(looks) == 1:
            raise ZeroDivisionError
        await sample(sampler)

    monkeypatch.setattr(Sampler, "sample", once_broken)
    metrics = {"listen": "127.0.0.1:0"}
    async with serving(tmp_path, encoder="none", metrics=metrics) as running:
        port = running.server.metrics_port
        assert port is not None
        await scraped(port, lambda one: one.value("longspan_memory_limit_bytes") > 0)
    assert "nothing sampled for metrics" in caplog.text
