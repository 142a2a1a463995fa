"""The GPUs that workers compute on."""

from __future__ import annotations

from collections.abc import Iterable

from longspan.server.metrics.families import Families
from longspan.server.metrics.worker_meter import WorkerMeter


class GpuMetrics:
    """Told by workers; no series without a GPU."""

    def __init__(self, families: Families) -> None:
        self._used = families.gauge(
            "longspan_gpu_memory_used_bytes",
            "Memory of a GPU that is taken, by whichever process.",
            "gpu",
        )
        self._total = families.gauge("longspan_gpu_memory_total_bytes", "All of it.", "gpu")
        self._busy = families.gauge(
            "longspan_gpu_utilization_ratio",
            "Share of the last moments in which the GPU ran something; needs nvidia-ml-py.",
            "gpu",
        )

        self._told: dict[str, set[str]] = {}

    def sample(self, role: str, workers: Iterable[WorkerMeter]) -> None:
        """What the workers of a role told last; a GPU that nobody tells of any more goes."""
        told = {gpu.index: gpu for worker in workers for gpu in worker.kept.gpus}
        gone = self._told.get(role, set()) - told.keys()
        self._told[role] = set(told)
        for index in gone.difference(*self._told.values()):
            for gauge in (self._used, self._total, self._busy):
                gauge.remove(index)
        for index, gpu in told.items():
            self._used.labels(index).set(gpu.used_bytes)
            self._total.labels(index).set(gpu.total_bytes)
            if gpu.HasField("utilization"):
                self._busy.labels(index).set(gpu.utilization)
