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

    def sample(self, workers: Iterable[WorkerMeter]) -> None:
        """What the workers told last."""
        for gpu in (gpu for worker in workers for gpu in worker.kept.gpus):
            self._used.labels(gpu.index).set(gpu.used_bytes)
            self._total.labels(gpu.index).set(gpu.total_bytes)
            if gpu.HasField("utilization"):
                self._busy.labels(gpu.index).set(gpu.utilization)
