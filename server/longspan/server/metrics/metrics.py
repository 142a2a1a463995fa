"""All metrics of one server."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version

from prometheus_client import ProcessCollector

from longspan.server.metrics.documents import DocumentMetrics
from longspan.server.metrics.families import Families, Family
from longspan.server.metrics.gpus import GpuMetrics
from longspan.server.metrics.kv import KvMetrics
from longspan.server.metrics.machine import MachineMetrics
from longspan.server.metrics.queues import QueueMetrics
from longspan.server.metrics.registry import Registry
from longspan.server.metrics.requests import RequestMetrics
from longspan.server.metrics.results import ResultMetrics
from longspan.server.metrics.role import DECODER, ENCODER, RoleMetrics
from longspan.server.metrics.rpcs import RpcMetrics
from longspan.server.metrics.steps import StepMetrics
from longspan.server.metrics.tracing import TracingMetrics
from longspan.server.metrics.workers import WorkerMetrics

PACKAGE = "longspan"


class Metrics:
    """Made once a server and handed to the parts, which count whether or not somebody scrapes.

    Attributes:
        registry: what is scraped; its own, so that two servers in a process share nothing.
    """

    def __init__(self) -> None:
        self.registry = Registry()
        families = self._families = Families(self.registry)
        families.info("longspan_build_info", "The version of the server.", version=version(PACKAGE))
        self.rpcs = RpcMetrics(families)
        self.requests = RequestMetrics(families)
        self.documents = DocumentMetrics(families)
        self._queues = QueueMetrics(families)
        self._steps = StepMetrics(families)
        self._workers = WorkerMetrics(families)
        self._kv = KvMetrics(families)
        self._gpus = GpuMetrics(families)
        self.results = ResultMetrics(families)
        self.machine = MachineMetrics(families)
        self.tracing = TracingMetrics(families)
        ProcessCollector(registry=self.registry)

    @property
    def catalogue(self) -> Sequence[Family]:
        """Every metric but those of the process, which the library has."""
        return self._families.made

    @cached_property
    def encoder(self) -> RoleMetrics:
        """Of the workers that embed."""
        return self._role(ENCODER)

    @cached_property
    def decoder(self) -> RoleMetrics:
        """Of the workers that write."""
        return self._role(DECODER)

    def _role(self, name: str) -> RoleMetrics:
        return RoleMetrics(
            name,
            queues=self._queues,
            steps=self._steps,
            workers=self._workers,
            kv=self._kv,
            gpus=self._gpus,
        )
