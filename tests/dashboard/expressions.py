"""What the dashboard asks Prometheus, with the reader's choices filled in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Panel = dict[str, Any]
CHOICES = {"$instance": ".+", "$__rate_interval": "1m"}


def targets(dashboard: dict[str, Any]) -> Iterator[tuple[Panel, dict[str, Any]]]:
    """Each query and its panel."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel, target


def filled(expression: str) -> str:
    """An expression that Prometheus takes."""
    for variable, value in CHOICES.items():
        expression = expression.replace(variable, value)
    return expression


def expressions(dashboard: dict[str, Any]) -> list[str]:
    """All of them, filled in."""
    return [filled(target["expr"]) for _, target in targets(dashboard)]
