"""The metrics of the workers of one role, and of the queue before them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.metrics.gpus import GpuMetrics
from longspan.server.metrics.kv import KvMetrics
from longspan.server.metrics.queues import QueueMetrics
from longspan.server.metrics.steps import StepMetrics
from longspan.server.metrics.worker_meter import WorkerMeter
from longspan.server.metrics.workers import WorkerMetrics
from longspan.server.pool.lifecycle import RestartReason
from longspan.server.queue.stats import DispatcherStats

ENCODER, DECODER = "encoder", "decoder"


class RoleMetrics:
    """What a dispatcher and its pool are handed."""

    def __init__(
        self,
        role: str,
        *,
        queues: QueueMetrics,
        steps: StepMetrics,
        workers: WorkerMetrics,
        kv: KvMetrics,
        gpus: GpuMetrics,
    ) -> None:
        self._role = role
        self._queues = queues
        self._steps = steps
        self._workers = workers
        self._kv = kv
        self._gpus = gpus
        self._meters: set[WorkerMeter] = set()
        workers.expect(role)

    @contextmanager
    def meter(self) -> Iterator[WorkerMeter]:
        """The meter of one process, as long as it runs."""
        meter = WorkerMeter(self._computed, self._kv.grew)
        self._meters.add(meter)
        try:
            yield meter
        finally:
            self._meters.remove(meter)

    def restarted(self, reason: RestartReason) -> None:
        """A process takes the place of a dead one."""
        self._workers.restarted(self._role, reason)

    def sample(self, stats: DispatcherStats) -> None:
        """Queue and processes as they are now."""
        self._queues.sample(self._role, stats)
        memory_bytes = sum(one.memory_bytes for one in self._meters)
        self._workers.sample(self._role, stats.workers, memory_bytes)
        self._gpus.sample(self._role, self._meters)
        if self._role == DECODER:
            self._kv.sample(self._meters)

    def _computed(self, told: pb.Computed, kept: pb.Resources) -> None:
        self._steps.computed(self._role, told)
        if self._role == DECODER:
            self._kv.computed(told, kept)
