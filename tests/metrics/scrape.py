"""Scrapes over HTTP, as Prometheus does it, and reads what comes back."""

from __future__ import annotations

import asyncio
import math
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

# A worker that has to start again takes most of it.
PATIENCE_S = 60.0
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True)
class Scrape:
    """One answer of the endpoint.

    Attributes:
        text: as it came.
        families: by the name in its TYPE line.
    """

    text: str
    families: Mapping[str, Metric]

    def samples(self, name: str, **labels: str) -> list[Sample]:
        """The samples of this name that have these labels, and perhaps others."""
        return [
            sample
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def value(self, name: str, **labels: str) -> float:
        """Their sum; 0 where there are none, as a series may begin with its first count."""
        return math.fsum(sample.value for sample in self.samples(name, **labels))


def fetch(port: int, accept: str = "") -> str:
    """What the endpoint says; blocking."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as response:
        return str(response.read().decode())


def openmetrics(port: int) -> Scrape:
    """As a scraper that asks for OpenMetrics, exemplars included; blocking."""
    text = fetch(port, OPENMETRICS)
    return Scrape(text, {family.name: family for family in parse_openmetrics(text)})  # type: ignore[no-untyped-call]


def plain(port: int) -> Scrape:
    """As any other scraper; blocking."""
    text = fetch(port)
    return Scrape(text, {family.name: family for family in parse_text(text)})


async def scraped(port: int, until: Callable[[Scrape], bool] = lambda _: True) -> Scrape:
    """Scrape until the answer is as it must become, for a while.

    Raises:
        AssertionError: it does not; the last answer is in the message.
    """
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        scrape = await asyncio.to_thread(openmetrics, port)
        if until(scrape):
            return scrape
        assert asyncio.get_running_loop().time() < deadline, scrape.text
        await asyncio.sleep(0.05)
