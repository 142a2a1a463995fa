"""Memory and utilisation of the GPU that a worker computes on."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol

import torch

from longspan.internal.v1 import worker_service_pb2 as pb

PERCENT = 100


class GpuReader(Protocol):
    """Asks about the GPUs of one worker."""

    def read(self) -> list[pb.Gpu]:
        """How things stand; empty where nobody can say."""
        ...


class NoGpu:
    """A worker on a CPU."""

    def read(self) -> list[pb.Gpu]:
        """Nothing."""
        return []


class TorchGpu:
    """What torch knows: the memory of the device, whoever takes it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._index = torch.cuda.current_device() if device.index is None else device.index

    def read(self) -> list[pb.Gpu]:
        """Memory alone; a device that is lost ends the worker elsewhere."""
        try:
            free, total = torch.cuda.mem_get_info(self._device)
        except RuntimeError:
            return []
        return [pb.Gpu(index=str(self._index), used_bytes=total - free, total_bytes=total)]


class NvmlGpu:
    """What the driver knows, through the optional package nvidia-ml-py."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self._index = str(nvml.nvmlDeviceGetIndex(handle))

    def read(self) -> list[pb.Gpu]:
        """Memory, and how busy it is."""
        nvml = self._nvml
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(self._handle)
        except nvml.NVMLError:
            return []
        told = pb.Gpu(index=self._index, used_bytes=memory.used, total_bytes=memory.total)
        # A part of a GPU (MIG) does not tell.
        with suppress(nvml.NVMLError):
            rates = nvml.nvmlDeviceGetUtilizationRates(self._handle)
            told.utilization = rates.gpu / PERCENT
        return [told]


def open_gpu(device: torch.device) -> GpuReader:
    """The reader of a device: by the driver, else by torch."""
    if device.type != "cuda":
        return NoGpu()
    return _by_driver(device) or TorchGpu(device)


def _by_driver(device: torch.device) -> NvmlGpu | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # By its name: ``CUDA_VISIBLE_DEVICES`` gives torch numbers of its own.
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        return NvmlGpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    except pynvml.NVMLError:
        return None
