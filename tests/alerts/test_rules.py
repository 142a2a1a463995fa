"""Every alert is complete, fires when it must, and keeps silent when it almost should not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.expectations import CASES, FIRING, expectations
from tests.alerts.promtool import promtool
from tests.alerts.rules import Rule, alerts, groups, write
from tests.support.data import REPOSITORY

RUNBOOKS = REPOSITORY / "docs" / "runbooks"
SEVERITIES = {"critical", "warning", "info"}


# A comparison with a number other than 0.
THRESHOLD = re.compile(r"([<>]) (0\.\d+|[1-9]\d*(?:\.\d+)?)")


def run_cases(folder: Path, content: list[dict[str, Any]], *, check: bool = True) -> str:
    """promtool's report on all cases, each file with the rules that it is about."""
    for path in CASES:
        own = folder / path.stem
        own.mkdir()
        shutil.copy(path, own)
        write(own / "rules.yaml", about(path.read_text("utf-8"), content))
    return promtool(folder, "test", "rules", *(f"{p.stem}/{p.name}" for p in CASES), check=check)


def about(cases: str, content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The alerts that a file of cases names, and what is recorded; more would only cost time."""
    return [
        {**group, "rules": [r for r in group["rules"] if f'"{r.get("alert")}"' in cases]}
        if "alert" in group["rules"][0]
        else group
        for group in content
    ]


def noticed(report: str) -> set[str]:
    """Alerts whose cases failed."""
    return set(FIRING.findall(report.replace('\\"', '"')))


def ease(match: re.Match[str]) -> str:
    """A threshold that half as much passes."""
    factor = 0.5 if match[1] == ">" else 2.0
    return f"{match[1]} {float(match[2]) * factor:g}"


def test_promtool_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    write(tmp_path / "rules.yaml")
    promtool(tmp_path, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")


def test_they_fire_when_they_must_and_only_then(tmp_path: Path) -> None:
    run_cases(tmp_path, groups())


@pytest.mark.parametrize("name", alerts())
def test_each_alert_has_cases_of_both_kinds(name: str) -> None:
    kinds = {bool(expected["exp_samples"]) for alert, expected in expectations() if alert == name}
    assert kinds == {True, False}


def test_cases_are_about_alerts_that_exist() -> None:
    assert {alert for alert, _ in expectations()} == alerts().keys()


def test_the_cases_notice_alerts_that_never_fire(tmp_path: Path) -> None:
    content = groups()
    for rule in (rule for group in content for rule in group["rules"] if "alert" in rule):
        rule["expr"] = "vector(0) > 1"
    report = run_cases(tmp_path, content, check=False)
    assert noticed(report) == alerts().keys()


def test_the_cases_notice_thresholds_that_are_half_as_strict(tmp_path: Path) -> None:
    content = groups()
    changed = set()
    for rule in (rule for group in content for rule in group["rules"] if "alert" in rule):
        eased = THRESHOLD.sub(ease, rule["expr"])
        if eased != rule["expr"]:
            changed.add(rule["alert"])
        rule["expr"] = eased
    assert noticed(run_cases(tmp_path, content, check=False)) == changed
    assert len(changed) > len(alerts()) / 2


@pytest.mark.parametrize(("name", "rule"), alerts().items())
def test_an_alert_says_what_an_operator_needs(name: str, rule: Rule) -> None:
    assert name.startswith("Longspan")
    assert re.fullmatch(r"\d+m", rule["for"])
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in SEVERITIES
    annotations = rule["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    assert annotations["description"].endswith(".")
    url = annotations["runbook_url"]
    assert url == f"https://longspan.example/docs/runbooks/{name}.md"
    assert (RUNBOOKS / f"{name}.md").exists()
