"""The dashboard is what its code makes, and asks for metrics that exist."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from tests.alerts.rules import alerts
from tests.dashboard.expressions import expressions, filled, targets
from tests.support.data import REPOSITORY
from tests.support.metric_names import LONGSPAN
from tests.support.promql import SERIES, problems, selectors

pytest.importorskip("grafana_foundation_sdk", reason="needs the extra dev")

from k8s.dashboard.__main__ import PATH
from k8s.dashboard.build import as_json

DASHBOARD: dict[str, Any] = json.loads(PATH.read_text("utf-8"))
TARGETS = list(targets(DASHBOARD))
ROWS = (
    "Traffic",
    "Latency",
    "Queue and batches",
    "Tokens",
    "KV and caches",
    "Workers and memory",
    "GPU",
    "Process",
)

each_target = pytest.mark.parametrize(
    ("panel", "target"), TARGETS, ids=[f"{p['title']}-{t['refId']}" for p, t in TARGETS]
)


def test_it_is_what_its_code_makes() -> None:
    assert PATH.read_text("utf-8") == as_json(), "run: make dashboard"


def test_it_lies_where_the_component_looks_for_it() -> None:
    component = REPOSITORY / "k8s" / "components" / "monitoring"
    assert str(PATH.relative_to(component)) in (component / "kustomization.yaml").read_text("utf-8")


def test_it_has_its_rows() -> None:
    assert tuple(p["title"] for p in DASHBOARD["panels"] if p["type"] == "row") == ROWS


@each_target
def test_an_expression_asks_for_what_exists(panel: dict[str, Any], target: dict[str, Any]) -> None:
    expression = filled(target["expr"])
    assert "$" not in expression
    assert problems(expression) == [], panel["title"]


@each_target
def test_a_reader_chooses_the_servers(panel: dict[str, Any], target: dict[str, Any]) -> None:
    for selector in selectors(target["expr"].replace("$__rate_interval", "1m")):
        matched = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        if selector.name != "ALERTS":
            assert (matched["job"], matched["instance"]) == ("longspan", "$instance")
    assert target["datasource"]["uid"] == "${datasource}"
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {
        "datasource",
        "instance",
    }


@each_target
def test_a_legend_names_labels_that_the_series_has(
    panel: dict[str, Any], target: dict[str, Any]
) -> None:
    kept = re.findall(r"by \(([^)]*)\)", target["expr"])
    named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    if kept:
        assert named <= set(", ".join(kept).split(", "))
    else:
        own = {k for s in selectors(filled(target["expr"])) for k in SERIES[str(s.name)].labels}
        assert named <= own | {"instance"}


def test_every_metric_can_be_seen() -> None:
    names = {str(s.name) for expression in expressions(DASHBOARD) for s in selectors(expression)}
    unseen = [name for name, metric in LONGSPAN.items() if not metric.series(name) & names]
    assert unseen == []


def test_panels_have_a_unit_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] == "row" or panel["fieldConfig"]["defaults"]["unit"]
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or apart, (one, other)


def test_lines_are_the_thresholds_of_alerts() -> None:
    """A line is the last number that some alert compares the same metric with."""
    for panel, target in TARGETS:
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", ())
        limits = [step["value"] for step in steps if step.get("value") is not None]
        for limit in limits:
            asked = {s.name for s in selectors(filled(target["expr"]))}
            compared = [
                rule["expr"]
                for rule in alerts().values()
                if asked & {s.name for s in selectors(rule["expr"])}
            ]
            assert any(re.search(rf"> {limit:g}\b", expr) for expr in compared), panel["title"]
