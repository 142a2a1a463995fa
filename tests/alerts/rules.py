"""The alert rules as Prometheus reads them, derived from the PrometheusRule objects."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.data import REPOSITORY

FOLDER = REPOSITORY / "k8s" / "components" / "monitoring"
FILES = ("recordings.yaml", "alerts.yaml")

Rule = dict[str, Any]


def groups() -> list[dict[str, Any]]:
    """All groups of rules, fresh objects each time."""
    found: list[dict[str, Any]] = []
    for name in FILES:
        resource = yaml.safe_load((FOLDER / name).read_text("utf-8"))
        assert resource["kind"] == "PrometheusRule"
        found += resource["spec"]["groups"]
    return found


def rules() -> Iterator[Rule]:
    """Every rule."""
    for group in groups():
        yield from group["rules"]


@cache
def alerts() -> dict[str, Rule]:
    """The alerting rules by name; not to be changed."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def write(path: Path, content: list[dict[str, Any]] | None = None) -> Path:
    """Write groups, by default all of them, as a file of Prometheus."""
    chosen = groups() if content is None else content
    path.write_text(yaml.safe_dump({"groups": chosen}, sort_keys=False), "utf-8")
    return path
