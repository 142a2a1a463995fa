"""Components mount, name and open what they tell the server to use."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.k8s.quantity import quantity
from tests.k8s.rendered import Rendered, render
from tests.k8s.settings import environment

DNS = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
# The Services that callers name, in the ways in which a cluster's DNS knows them.
SUFFIXES = ("", ".longspan.svc", ".longspan.svc.cluster.local")


@pytest.fixture(scope="module")
def production() -> Rendered:
    return render("overlays/production")


def secret_below(rendered: Rendered, path: str) -> dict[str, Any]:
    """The Secret that is mounted where a file lies."""
    pod = rendered.server()
    folder = str(PurePosixPath(path).parent)
    [mount] = [m for m in pod.container["volumeMounts"] if m["mountPath"] == folder]
    # A file by itself is never changed, and the server reads these again when they change.
    assert mount["readOnly"] is True
    assert "subPath" not in mount
    [volume] = [v for v in pod.spec["volumes"] if v["name"] == mount["name"]]
    secret = volume["secret"]
    assert isinstance(secret, dict)
    return secret


def way_out(rendered: Rendered, name: str) -> list[dict[str, Any]]:
    """What an egress policy of the server allows beside DNS."""
    policy = rendered.policies()[name]
    assert policy["policyTypes"] == ["Egress"]
    assert rendered.selected(policy["podSelector"]["matchLabels"]) == ["StatefulSet/longspan"]
    lookups = [rule for rule in policy["egress"] if rule["ports"] == DNS]
    assert len(lookups) == 1
    return [rule for rule in policy["egress"] if rule not in lookups]


def test_redis_is_where_the_server_looks_for_it(production: Rendered) -> None:
    url = urlsplit(environment(production)["LONGSPAN_RESULT_CACHE_REDIS"])
    [service] = [s for s in production.of_kind("Service") if s["metadata"]["name"] == url.hostname]
    [port] = service["spec"]["ports"]
    assert port["port"] == url.port
    [owner] = production.selected(service["spec"]["selector"])
    [redis] = [pod for pod in production.pods() if pod.owner == owner]
    [own] = redis.container["ports"]
    assert (port["targetPort"], own["containerPort"]) == (own["name"], url.port)


def test_nobody_but_the_server_reaches_redis(production: Rendered) -> None:
    policy = production.policies()["longspan-redis"]
    redis = production.selected(policy["podSelector"]["matchLabels"])
    assert redis == ["Deployment/longspan-redis"]
    [rule] = policy["ingress"]
    [peer] = rule["from"]
    assert production.selected(peer["podSelector"]["matchLabels"]) == ["StatefulSet/longspan"]
    [out] = way_out(production, "longspan-to-redis")
    assert out["ports"] == rule["ports"] == [{"protocol": "TCP", "port": 6379}]
    assert production.selected(out["to"][0]["podSelector"]["matchLabels"]) == redis


def test_redis_keeps_less_than_its_memory(production: Rendered) -> None:
    [redis] = [pod for pod in production.pods() if pod.owner == "Deployment/longspan-redis"]
    arguments = redis.container["args"]
    limit = arguments[arguments.index("--maxmemory") + 1]
    kept = quantity(re.sub("mb$", "Mi", limit))
    assert kept <= quantity(redis.container["resources"]["limits"]["memory"]) / 2
    assert arguments[arguments.index("--maxmemory-policy") + 1] == "allkeys-lru"


def test_the_way_to_the_collector_is_open(production: Rendered) -> None:
    url = urlsplit(environment(production)["LONGSPAN_TRACING__ENDPOINT"])
    assert url.hostname is not None
    _, namespace, _ = url.hostname.split(".", 2)
    [out] = way_out(production, "longspan-to-collector")
    assert out["ports"] == [{"protocol": "TCP", "port": url.port}]
    [peer] = out["to"]
    assert peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == namespace


def test_the_certificate_is_mounted_where_the_server_reads_it(production: Rendered) -> None:
    [certificate] = production.of_kind("Certificate")
    variables = environment(production)
    files = [variables["LONGSPAN_TLS__CERT"], variables["LONGSPAN_TLS__KEY"]]
    assert [PurePosixPath(file).name for file in files] == ["tls.crt", "tls.key"]
    for file in files:
        mounted = secret_below(production, file)
        assert mounted["secretName"] == certificate["spec"]["secretName"]


def test_the_certificate_has_the_names_that_callers_use(production: Rendered) -> None:
    [certificate] = production.of_kind("Certificate")
    named = set(certificate["spec"]["dnsNames"])
    [headless] = [s for s in production.of_kind("Service") if s["spec"].get("clusterIP") == "None"]
    pods = f"*.{headless['metadata']['name']}"
    assert named == {f"{name}{suffix}" for name in ("longspan", pods) for suffix in SUFFIXES}


def test_with_tls_services_do_not_promise_plain_http2(production: Rendered) -> None:
    for rendered, protocol in (
        (production, "https"),
        (render("overlays/single-gpu"), "kubernetes.io/h2c"),
    ):
        for service in rendered.of_kind("Service"):
            if service["metadata"]["name"] != "longspan-redis":
                assert service["spec"]["ports"][0]["appProtocol"] == protocol


def test_keys_are_mounted_where_the_server_reads_them(production: Rendered) -> None:
    file = environment(production)["LONGSPAN_AUTH__KEYS_FILE"]
    assert secret_below(production, file)["secretName"] == "longspan-auth-keys"


def test_secrets_are_readable_for_the_server_alone(production: Rendered) -> None:
    pod = production.server()
    assert pod.spec["securityContext"]["fsGroup"] == pod.spec["securityContext"]["runAsGroup"]
    secrets = [v["secret"] for v in pod.spec["volumes"] if "secret" in v]
    assert len(secrets) == 2
    assert {secret["defaultMode"] for secret in secrets} == {0o440}


def test_with_tls_and_keys_the_port_is_not_called_insecure(production: Rendered) -> None:
    assert environment(production)["LONGSPAN_INSECURE"] == "false"


def test_pods_are_kept_for_as_long_as_a_start_may_take(production: Rendered) -> None:
    [scaled] = production.of_kind("ScaledObject")
    behavior = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    probe = production.server().container["startupProbe"]
    longest = probe["periodSeconds"] * probe["failureThreshold"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= longest
    assert scaled["spec"]["minReplicaCount"] >= 1


def test_what_is_scaled_names_no_number_of_its_own(production: Rendered) -> None:
    [scaled] = production.of_kind("ScaledObject")
    [stateful_set] = production.of_kind("StatefulSet")
    target = scaled["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("StatefulSet", stateful_set["metadata"]["name"])
    assert "replicas" not in stateful_set["spec"]
