"""From rows of graphs to a dashboard of Grafana."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import common, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.dashboard import Row as RowPanel
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

from k8s.dashboard.graph import Graph, Query, Row
from k8s.dashboard.requests import LATENCY, TRAFFIC
from k8s.dashboard.resources import GPU, PROCESS, WORKERS
from k8s.dashboard.work import CACHES, QUEUES, TOKENS

ROWS = (TRAFFIC, LATENCY, QUEUES, TOKENS, CACHES, WORKERS, GPU, PROCESS)
WIDTH, HEIGHT = 8, 8  # of 24 columns
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def as_json(rows: Sequence[Row] = ROWS) -> str:
    """The dashboard as Grafana imports it; the same text each time."""
    return JSONEncoder(sort_keys=True, indent=2).encode(_dashboard(rows).build()) + "\n"


def _dashboard(rows: Sequence[Row]) -> Dashboard:
    dashboard = (
        Dashboard("Longspan")
        .uid("longspan")
        .tags(["longspan"])
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_instance())
    )
    number = 0
    for row in rows:
        number += 1
        dashboard = dashboard.with_row(RowPanel(row.title).id(number))
        for graph in row.graphs:
            number += 1
            dashboard = dashboard.with_panel(_panel(graph).id(number))
    return dashboard


def _instance() -> QueryVariable:
    return (
        QueryVariable("instance")
        .label("Server")
        .datasource(SOURCE)
        .query('label_values(up{job="longspan"}, instance)')
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".+")
    )


def _panel(graph: Graph) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(graph.title)
        .description(graph.note)
        .unit(graph.unit)
        .datasource(SOURCE)
        .min(0)
        .span(WIDTH)
        .height(HEIGHT)
        .fill_opacity(10)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if graph.stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if graph.limit is not None:
        panel = panel.thresholds(_line(graph.limit)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.LINE)
        )
    for position, query in enumerate(graph.queries):
        panel = panel.with_target(_target(query, chr(ord("A") + position)))
    return panel


def _line(limit: float) -> ThresholdsConfig:
    steps = [Threshold(value=None, color="green"), Threshold(value=limit, color="red")]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _target(query: Query, ref_id: str) -> Dataquery:
    return (
        Dataquery()
        .datasource(SOURCE)
        .expr(query.expression)
        .legend_format(query.legend)
        .ref_id(ref_id)
    )
