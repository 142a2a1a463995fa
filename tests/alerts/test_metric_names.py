"""Alerts ask for metrics that exist, and speak of labels that they have."""

from __future__ import annotations

import re

import pytest

from tests.alerts.expectations import expectations
from tests.alerts.rules import Rule, alerts, rules
from tests.support.metric_names import BOUNDS
from tests.support.promql import problems, selectors

RECORDED = frozenset(rule["record"] for rule in rules() if "record" in rule)


@pytest.mark.parametrize(
    "rule", list(rules()), ids=lambda rule: rule.get("alert", rule.get("record"))
)
def test_rules_ask_for_what_exists(rule: Rule) -> None:
    assert selectors(rule["expr"])
    assert problems(rule["expr"], RECORDED) == []


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("longspan_worker > 0", "no metric longspan_worker"),
        ('longspan_workers{role="driver"}', "longspan_workers.role is never 'driver'"),
        ('longspan_workers{kind="decoder"}', "longspan_workers.kind is never 'decoder'"),
        ("longspan_batch_wait_seconds", "no metric longspan_batch_wait_seconds"),
    ],
)
def test_what_does_not_exist_would_be_seen(expression: str, problem: str) -> None:
    [found] = problems(expression)
    assert found.startswith(problem)


@pytest.mark.parametrize(("name", "rule"), alerts().items())
def test_annotations_speak_of_labels_that_the_alert_has(name: str, rule: Rule) -> None:
    text = " ".join(rule["annotations"].values())
    used = set(re.findall(r"\$labels\.(\w+)", text))
    for alert, expected in expectations():
        for sample in expected["exp_samples"]:
            if alert == name:
                assert used <= set(re.findall(r'(\w+)="', sample["labels"]))


def test_quantiles_are_compared_with_a_bound_of_a_bucket() -> None:
    compared = {}
    for rule in alerts().values():
        if "histogram_quantile" in rule["expr"]:
            [metric] = re.findall(r"(longspan_\w+)_bucket", rule["expr"])
            [bound] = re.findall(r"> (0\.\d+)", rule["expr"])
            compared[metric] = float(bound)
    assert compared == BOUNDS
