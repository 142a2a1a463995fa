"""The device a worker computes on: threads, kind of numbers, free memory."""

from __future__ import annotations

import torch

from longspan.worker.failures import StartFailure
from longspan.worker.memory import host_free_bytes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def set_threads(threads: int | None) -> None:
    """Compute with this many CPU threads; None leaves torch's choice."""
    if threads is not None:
        torch.set_num_threads(threads)


def open_device(name: str) -> torch.device:
    """The device of this name, tried out.

    Raises:
        StartFailure: there is no such device, or it does not compute.
    """
    try:
        device = torch.device(name)
        torch.ones(1, device=device).add(1).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise StartFailure(f"device {name} cannot be used: {reason}") from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Resolve ``auto``: bfloat16 only where the hardware computes it, else float32."""
    if name != "auto":
        return DTYPES[name]
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def free_bytes(device: torch.device) -> int | None:
    """Memory that can still be taken on the device; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return host_free_bytes()


def has_bfloat16(device: torch.device) -> bool:
    """True where the hardware computes bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
