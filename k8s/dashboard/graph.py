"""One panel of the dashboard, as data."""

from __future__ import annotations

from dataclasses import dataclass

# In an expression, for the servers that the reader has chosen.
CHOSEN = "$servers"
_SELECTOR = 'job="longspan",instance=~"$instance"'
_RANGE = "$__rate_interval"


@dataclass(frozen=True)
class Query:
    """An expression of Prometheus and what its series are called."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Graph:
    """Values over time.

    Attributes:
        unit: a unit id of Grafana, as s, bytes, reqps or percentunit.
        note: what a reader has to know to read it.
        limit: an alert's threshold, drawn as a line.
    """

    title: str
    unit: str
    queries: tuple[Query, ...]
    note: str = ""
    stacked: bool = False
    limit: float | None = None


@dataclass(frozen=True)
class Row:
    """Graphs that belong together."""

    title: str
    graphs: tuple[Graph, ...]


def query(expression: str, legend: str = "{{instance}}") -> Query:
    """A query in which ``$servers`` is written out."""
    return Query(expression.replace(CHOSEN, _SELECTOR), legend)


def rate(metric: str, by: str, matchers: str = "") -> Query:
    """How much a counter grows a second, by one label."""
    inside = ",".join(filter(None, (CHOSEN, matchers)))
    return query(f"sum by ({by}) (rate({metric}{{{inside}}}[{_RANGE}]))", f"{{{{{by}}}}}")


def quantiles(histogram: str, by: str = "", matchers: str = "") -> tuple[Query, ...]:
    """Median and P99 of a histogram, by one more label if any."""
    inside = ",".join(filter(None, (CHOSEN, matchers)))
    labels = ", ".join(filter(None, ("le", by)))
    series = f"sum by ({labels}) (rate({histogram}_bucket{{{inside}}}[{_RANGE}]))"
    name = f" {{{{{by}}}}}" if by else ""
    return (
        query(f"histogram_quantile(0.5, {series})", f"p50{name}"),
        query(f"histogram_quantile(0.99, {series})", f"p99{name}"),
    )


def share(part: str, whole: str, by: str) -> Query:
    """The part of a whole, by one label; nothing where there is no whole."""
    return query(
        f"sum by ({by}) (rate({part}[{_RANGE}])) / (sum by ({by}) (rate({whole}[{_RANGE}])) > 0)",
        f"{{{{{by}}}}}",
    )
