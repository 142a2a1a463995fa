"""Services and policies meet the pods and the ports that they are for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.k8s.rendered import OVERLAYS, Rendered, render
from tests.k8s.settings import listening, settings


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Rendered:
    return render(f"overlays/{request.param}")


def test_the_ports_are_those_the_server_listens_on(
    overlay: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert overlay.ports() == listening(settings(overlay, monkeypatch))


def test_probes_go_to_the_port_that_stays_plain(overlay: Rendered) -> None:
    container = overlay.server().container
    probes = [probe["grpc"] for name, probe in container.items() if name.endswith("Probe")]
    assert len(probes) == 3
    assert {probe["port"] for probe in probes} == {overlay.ports()["admin"]}


def test_services_lead_to_the_api_and_to_nothing_else(overlay: Rendered) -> None:
    services = [
        service
        for service in overlay.of_kind("Service")
        if "StatefulSet/longspan" in overlay.selected(service["spec"]["selector"])
    ]
    assert {service["metadata"]["name"] for service in services} == {"longspan", "longspan-pods"}
    for service in services:
        [port] = service["spec"]["ports"]
        assert port["targetPort"] == "api"
        # Headless services translate no port: what is named must be where the pod listens.
        assert port["port"] == overlay.ports()["api"]


def test_pods_have_names_of_their_own(overlay: Rendered) -> None:
    [stateful_set] = overlay.of_kind("StatefulSet")
    [headless] = [s for s in overlay.of_kind("Service") if s["spec"].get("clusterIP") == "None"]
    assert stateful_set["spec"]["serviceName"] == headless["metadata"]["name"]


def test_everything_is_closed_but_the_api_for_callers(overlay: Rendered) -> None:
    policies = overlay.policies()
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    callers = policies["longspan-callers"]
    assert overlay.selected(callers["podSelector"]["matchLabels"]) == ["StatefulSet/longspan"]
    assert callers["policyTypes"] == ["Ingress"]
    [rule] = callers["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": overlay.ports()["api"]}]
    assert all(peer.values() and peer != {"podSelector": {}} for peer in rule["from"])


@pytest.mark.parametrize("name", [name for name in OVERLAYS if name != "production"])
def test_without_components_no_other_policy_opens_anything(name: str) -> None:
    assert render(f"overlays/{name}").policies().keys() == {"default-deny", "longspan-callers"}


def test_selectors_match_the_pods(overlay: Rendered) -> None:
    [stateful_set] = overlay.of_kind("StatefulSet")
    [budget] = overlay.of_kind("PodDisruptionBudget")
    spread: list[Any] = overlay.server().spec["topologySpreadConstraints"]
    selectors = [stateful_set["spec"]["selector"], budget["spec"]["selector"]]
    selectors += [constraint["labelSelector"] for constraint in spread]
    for selector in selectors:
        assert overlay.selected(selector["matchLabels"]) == ["StatefulSet/longspan"]


def test_names_that_pods_refer_to_exist(overlay: Rendered) -> None:
    spec = overlay.server().spec
    accounts = {item["metadata"]["name"] for item in overlay.of_kind("ServiceAccount")}
    classes = {item["metadata"]["name"] for item in overlay.of_kind("PriorityClass")}
    assert spec["serviceAccountName"] in accounts
    assert spec["priorityClassName"] in classes


def test_the_model_is_looked_for_where_it_is_brought() -> None:
    [claim] = render("model-volume").of_kind("PersistentVolumeClaim")
    volumes = render("overlays/single-gpu").server().spec["volumes"]
    wanted = [v["persistentVolumeClaim"] for v in volumes if "persistentVolumeClaim" in v]
    assert wanted == [{"claimName": claim["metadata"]["name"], "readOnly": True}]
