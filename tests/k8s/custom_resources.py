"""Kinds that operators bring, as far as the manifests use them: written by hand, and strict.

They stand in for schemas that no package here carries: an unknown or misspelt field, a missing one
or a wrong type is an error. A field that the operator knows and no manifest uses is unknown here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Duration = Annotated[str, StringConstraints(pattern=r"^(\d+(ms|s|m|h))+$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class Strict(BaseModel):
    """Nothing is coerced, nothing unknown is allowed."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    """What every object has."""

    name: Text
    namespace: Text
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Selector(Strict):
    """Labels to match."""

    matchLabels: dict[str, str]


class Endpoint(Strict):
    """Where a pod is scraped."""

    port: Text
    path: Text
    interval: Duration
    scrapeTimeout: Duration


class PodMonitorSpec(Strict):
    """monitoring.coreos.com/v1."""

    jobLabel: Text
    selector: Selector
    podMetricsEndpoints: Annotated[list[Endpoint], Field(min_length=1)]


class Rule(Strict):
    """An alert or a recording."""

    alert: Text | None = None
    record: Text | None = None
    expr: Text
    for_: Duration | None = Field(None, alias="for")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    def model_post_init(self, _: Any, /) -> None:
        """One or the other."""
        if (self.alert is None) == (self.record is None):
            raise ValueError("a rule alerts or records")


class Group(Strict):
    """Rules that are evaluated one after the other."""

    name: Text
    rules: list[Rule]


class PrometheusRuleSpec(Strict):
    """monitoring.coreos.com/v1."""

    groups: list[Group]


class Target(Strict):
    """What is scaled."""

    apiVersion: Text
    kind: Text
    name: Text


class Policy(Strict):
    """How far at once."""

    type: Literal["Pods", "Percent"]
    value: Annotated[int, Field(gt=0)]
    periodSeconds: Annotated[int, Field(gt=0, le=1800)]


class Scaling(Strict):
    """One direction."""

    stabilizationWindowSeconds: Annotated[int, Field(ge=0, le=3600)]
    policies: Annotated[list[Policy], Field(min_length=1)]


class Behavior(Strict):
    """Of the autoscaler that KEDA makes."""

    scaleUp: Scaling
    scaleDown: Scaling


class AutoscalerConfig(Strict):
    """Around it."""

    behavior: Behavior


class Advanced(Strict):
    """Around that."""

    horizontalPodAutoscalerConfig: AutoscalerConfig


class PrometheusQuery(Strict):
    """All values are text."""

    serverAddress: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
    query: Text
    threshold: Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?$")]
    ignoreNullValues: Literal["true", "false"]


class Trigger(Strict):
    """What asks for more pods."""

    type: Literal["prometheus"]
    name: Text
    metricType: Literal["AverageValue", "Value"]
    metadata: PrometheusQuery


class ScaledObjectSpec(Strict):
    """keda.sh/v1alpha1."""

    scaleTargetRef: Target
    pollingInterval: int
    minReplicaCount: int
    maxReplicaCount: int
    advanced: Advanced
    triggers: Annotated[list[Trigger], Field(min_length=1)]


class PrivateKey(Strict):
    """Of a certificate."""

    algorithm: Literal["RSA", "ECDSA", "Ed25519"]
    size: int
    rotationPolicy: Literal["Never", "Always"]


class Issuer(Strict):
    """Who signs it."""

    group: Literal["cert-manager.io"]
    kind: Literal["Issuer", "ClusterIssuer"]
    name: Text


class CertificateSpec(Strict):
    """cert-manager.io/v1."""

    secretName: Text
    duration: Duration
    renewBefore: Duration
    privateKey: PrivateKey
    usages: list[Literal["digital signature", "server auth"]]
    dnsNames: Annotated[list[Text], Field(min_length=1)]
    issuerRef: Issuer


SPECS: dict[str, type[Strict]] = {
    "monitoring.coreos.com/v1/PodMonitor": PodMonitorSpec,
    "monitoring.coreos.com/v1/PrometheusRule": PrometheusRuleSpec,
    "keda.sh/v1alpha1/ScaledObject": ScaledObjectSpec,
    "cert-manager.io/v1/Certificate": CertificateSpec,
}


def validate(item: dict[str, Any]) -> None:
    """Check an object of one of these kinds.

    Raises:
        KeyError: it is of no such kind.
        pydantic.ValidationError: it does not fit.
    """
    spec = SPECS[f"{item['apiVersion']}/{item['kind']}"]
    Metadata.model_validate(item["metadata"])
    spec.model_validate(item["spec"])
    assert item.keys() == {"apiVersion", "kind", "metadata", "spec"}
