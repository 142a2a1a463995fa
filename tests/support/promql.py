"""What an expression of Prometheus asks for, checked against the metrics that exist."""

from __future__ import annotations

import re
from collections.abc import Mapping

import promql_parser

from tests.support.metric_names import LONGSPAN, OTHERS, PROCESS, TARGET_LABELS, Metric, Values

SERIES: Mapping[str, Metric] = {
    series: metric
    for name, metric in {**LONGSPAN, **PROCESS, **OTHERS}.items()
    for series in metric.series(name)
}


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every selector of series in an expression.

    Raises:
        ValueError: it is none.
    """
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def problems(expression: str, recorded: frozenset[str] = frozenset()) -> list[str]:
    """What an expression asks for that no series can have.

    Args:
        recorded: names that recording rules make.
    """
    found = []
    for selector in selectors(expression):
        if selector.name in recorded:
            continue
        metric = SERIES.get(str(selector.name))
        if metric is None:
            found.append(f"no metric {selector.name}")
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name not in TARGET_LABELS:
                values = metric.labels.get(matcher.name, frozenset())
                found += _unknown(f"{selector.name}.{matcher.name}", matcher.value, values)
    return found


def _unknown(label: str, wanted: str, values: Values) -> list[str]:
    if values is None:
        return []
    return [
        f"{label} is never {value!r}"
        for value in wanted.split("|")
        if not any(re.fullmatch(value, known) for known in values)
    ]
