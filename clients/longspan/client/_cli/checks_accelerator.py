"""Looks at the GPUs and at the kernels that compute attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from longspan.client._cli.checks import Finding, Verdict
from longspan.client._cli.gpus import Gpu
from longspan.client._cli.probing import Kernel, Probe

GIB = 1 << 30


def accelerator(probe: Probe, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """Everything about GPUs, torch and kernels.

    Args:
        gpus: those that torch or the driver names.
    """
    yield from _gpus(gpus, seen_by_torch=bool(probe.gpus), torch=bool(probe.torch))
    if probe.torch:
        yield Finding("torch", Verdict.OK, probe.torch)
    else:
        yield Finding("torch", Verdict.ABSENT, probe.error)
    for kernel in probe.kernels:
        yield _kernel(kernel, needed=bool(probe.gpus))
    if probe.attention:
        yield Finding("attention", Verdict.OK, f"a worker here computes it with {probe.attention}")


def _gpus(gpus: Sequence[Gpu], *, seen_by_torch: bool, torch: bool) -> Iterator[Finding]:
    if not gpus:
        yield Finding("gpu", Verdict.ABSENT, "no CUDA device; everything runs on the CPU")
    unusable = torch and not seen_by_torch
    for number, gpu in enumerate(gpus):
        detail = (
            f"{gpu.name}, {gpu.memory_bytes / GIB:.1f} GiB, compute capability {gpu.capability}"
        )
        if unusable:
            yield Finding(f"gpu {number}", Verdict.ABSENT, f"{detail}; this torch cannot use it")
        else:
            yield Finding(f"gpu {number}", Verdict.OK, detail)


def _kernel(kernel: Kernel, *, needed: bool) -> Finding:
    if kernel.error:
        # A worker on a GPU takes what is installed, and would not start.
        verdict = Verdict.BROKEN if needed else Verdict.ABSENT
        return Finding(kernel.name, verdict, f"cannot be imported: {kernel.error}")
    if not kernel.version:
        return Finding(kernel.name, Verdict.ABSENT, "not installed; for GPUs only")
    return Finding(kernel.name, Verdict.OK, kernel.version)
