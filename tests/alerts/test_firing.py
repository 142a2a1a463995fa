"""A real Prometheus scrapes, evaluates the rules, and alerts fire."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from tests.alerts.rules import groups
from tests.support.prometheus_process import PrometheusProcess

# Tests cannot wait for minutes: what has to last for some lasts for a second, and what is looked
# at over a quarter of an hour is looked at over 20 seconds.
FOR = "1s"
RANGE = "20s"


class Exposition:
    """A target whose numbers the test sets."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.workers = Gauge("longspan_workers", "", ["role", "state"], registry=registry)
        self.restarts = Counter(
            "longspan_worker_restarts", "", ["role", "reason"], registry=registry
        )
        self.set_workers(ready=1, down=0)
        self.restarts.labels("decoder", "signal")
        self._server, self._thread = start_http_server(0, "127.0.0.1", registry)
        self.target = f"127.0.0.1:{self._server.server_port}"

    def set_workers(self, *, ready: int, down: int) -> None:
        """How many decoders are in which state."""
        self.workers.labels("decoder", "ready").set(ready)
        self.workers.labels("decoder", "starting").set(0)
        self.workers.labels("decoder", "down").set(down)

    def close(self) -> None:
        """End its server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def hurried() -> list[dict[str, Any]]:
    """The rules with short times."""
    content = groups()
    for group in content:
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"\[\d+[mhd]\]", f"[{RANGE}]", rule["expr"])
            if "for" in rule:
                rule["for"] = FOR
    return content


@pytest.fixture(scope="module")
def target() -> Iterator[Exposition]:
    exposition = Exposition()
    yield exposition
    exposition.close()


@pytest.fixture(scope="module")
def prometheus(
    target: Exposition, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusProcess]:
    folder = tmp_path_factory.mktemp("prometheus")
    with PrometheusProcess.scraping(folder, target.target, hurried()) as running:
        running.until(lambda: running.query('up{job="longspan"} == 1'), "nothing was scraped")
        yield running


def test_no_ready_worker_is_an_alert_until_there_is_one(
    target: Exposition, prometheus: PrometheusProcess
) -> None:
    name = "LongspanNoReadyWorkers"
    assert prometheus.firing(name) == []
    target.set_workers(ready=0, down=1)
    prometheus.until(lambda: prometheus.firing(name), "it did not fire")
    [alert] = prometheus.firing(name)
    assert alert["labels"]["role"] == "decoder"
    assert alert["labels"]["severity"] == "critical"
    assert "1 decoder workers" in alert["annotations"]["description"]
    target.set_workers(ready=1, down=0)
    prometheus.until(lambda: not prometheus.firing(name), "it did not end")


def test_flapping_workers_are_an_alert(target: Exposition, prometheus: PrometheusProcess) -> None:
    name = "LongspanWorkerFlapping"
    assert prometheus.firing(name) == []
    target.restarts.labels("decoder", "signal").inc(3)
    prometheus.until(lambda: prometheus.firing(name), "it did not fire")
    [alert] = prometheus.firing(name)
    assert alert["annotations"]["summary"] == "decoder workers keep dying"


def test_no_rule_fails(prometheus: PrometheusProcess) -> None:
    assert prometheus.unhealthy() == {}
