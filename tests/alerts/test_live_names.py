"""The list of metrics that alerts and dashboard rely on is what a server exposes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from longspan.server.metrics.machine import LAG_S
from longspan.server.metrics.metrics import Metrics
from longspan.server.metrics.requests import TOKEN_S
from longspan.server.metrics.rpcs import SECONDS
from longspan.server.metrics.steps import WAIT_S
from longspan.server.metrics.workers import STATES
from longspan.server.pool.lifecycle import RestartReason
from longspan.server.services.refusals import REASONS
from tests.alerts.rules import alerts
from tests.support.metric_names import BOUNDS, LONGSPAN, PROCESS
from tests.support.promql import SERIES, selectors


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return Metrics()


def exposed(metrics: Metrics) -> Iterator[tuple[str, dict[str, str]]]:
    """Every series that a scrape of them has."""
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            yield sample.name, sample.labels


def test_names_kinds_and_labels_are_those_of_the_server(metrics: Metrics) -> None:
    server = {one.name: (one.kind, set(one.labels)) for one in metrics.catalogue}
    server["longspan_build_info"] = ("gauge", server["longspan_build_info"][1])
    assert server == {name: (one.kind, set(one.labels)) for name, one in LONGSPAN.items()}


def test_the_process_tells_what_is_asked_of_it(metrics: Metrics) -> None:
    assert PROCESS.keys() <= {name for name, _ in exposed(metrics)}


def test_quantiles_are_compared_with_bounds_of_buckets() -> None:
    """A quantile is guessed between two bounds: only at a bound is the comparison exact."""
    buckets = {
        "longspan_time_per_output_token_seconds": TOKEN_S,
        "longspan_request_duration_seconds": SECONDS,
        "longspan_batch_wait_seconds": WAIT_S,
        "longspan_event_loop_lag_seconds": LAG_S,
    }
    assert buckets.keys() == BOUNDS.keys()
    for name, bound in BOUNDS.items():
        assert bound in buckets[name], name


def test_states_and_reasons_are_those_of_the_server() -> None:
    assert LONGSPAN["longspan_workers"].labels["state"] == frozenset(STATES)
    reasons = LONGSPAN["longspan_worker_restarts_total"].labels["reason"]
    assert reasons == frozenset(RestartReason)


@pytest.mark.parametrize("name", alerts())
def test_refusals_are_counted_under_the_reasons_that_alerts_ask_for(name: str) -> None:
    for selector in selectors(alerts()[name]["expr"]):
        if selector.name == "longspan_requests_rejected_total":
            for matcher in selector.matchers.matchers:
                known = REASONS | {"UNAUTHENTICATED", "RATE_LIMITED"}
                assert set(matcher.value.split("|")) <= known


def test_every_series_of_the_server_is_in_the_list(metrics: Metrics) -> None:
    longspan = {name for name, _ in exposed(metrics) if name.startswith("longspan_")}
    assert longspan <= SERIES.keys()
