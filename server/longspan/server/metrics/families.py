"""Makes metrics, and knows all that it made: the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: as it is exposed; series of a histogram add ``_bucket``, ``_sum`` or ``_count``.
        kind: counter, gauge, histogram or info.
        labels: their names.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Families:
    """Makes the metrics of one registry; each name once.

    Attributes:
        made: what was made so far, in its order.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.made: list[Family] = []

    def counter(self, name: str, meaning: str, *labels: str) -> Counter:
        """A count that only grows; the name ends in ``_total``."""
        self._note(name, "counter", labels, meaning)
        return Counter(name, meaning, labels, registry=self._registry)

    def gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        """A number that goes up and down."""
        self._note(name, "gauge", labels, meaning)
        return Gauge(name, meaning, labels, registry=self._registry)

    def histogram(
        self, name: str, meaning: str, buckets: Sequence[float], *labels: str
    ) -> Histogram:
        """How values are distributed; ``buckets`` are their upper bounds, ascending."""
        self._note(name, "histogram", labels, meaning)
        return Histogram(name, meaning, labels, buckets=buckets, registry=self._registry)

    def info(self, name: str, meaning: str, **values: str) -> None:
        """Texts that stay as they are; the name ends in ``_info``."""
        self._note(name, "info", tuple(values), meaning)
        Info(name.removesuffix("_info"), meaning, registry=self._registry).info(values)

    def _note(self, name: str, kind: str, labels: Sequence[str], meaning: str) -> None:
        self.made.append(Family(name, kind, tuple(labels), meaning))
