"""Looks at the machine: Python, cores, memory, accelerator, disk."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from longspan.client._cli.checks import Finding, Verdict

GIB = 1 << 30
MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 64 << 20


def machine() -> Iterator[Finding]:
    """Everything about the machine."""
    yield _python()
    yield Finding("cpu", Verdict.OK, f"{_cores()} cores, {platform.machine()}")
    yield Finding("memory", Verdict.OK, _memory())
    yield _cpu_features()
    yield _gpu()
    yield _disk()


def _python() -> Finding:
    verdict = Verdict.OK if sys.version_info >= MIN_PYTHON else Verdict.BROKEN
    return Finding("python", verdict, f"{platform.python_version()} ({sys.executable})")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB:.1f} GiB"
    except (AttributeError, ValueError, OSError):
        return "unknown"


def _cpu_features() -> Finding:
    try:
        words = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        return Finding("cpu features", Verdict.ABSENT, "unknown on this system")
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "bf16")
    found = [name for name in wanted if name in words]
    verdict = Verdict.OK if found else Verdict.ABSENT
    return Finding("cpu features", verdict, ", ".join(found) or "none of " + ", ".join(wanted))


def _gpu() -> Finding:
    name = _gpu_by_tool() or _gpu_by_torch()
    if name:
        return Finding("gpu", Verdict.OK, name)
    return Finding("gpu", Verdict.ABSENT, "no CUDA device; everything runs on the CPU")


def _gpu_by_tool() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(done.stdout.split("\n")).strip("; ")


def _gpu_by_torch() -> str:
    try:
        import torch
    except (ImportError, OSError):
        return ""
    if not torch.cuda.is_available():
        return ""
    return "; ".join(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count()))


def _disk() -> Finding:
    free_bytes = shutil.disk_usage(Path.cwd()).free
    verdict = Verdict.OK if free_bytes >= MIN_FREE_BYTES else Verdict.BROKEN
    return Finding("disk", verdict, f"{free_bytes / GIB:.1f} GiB free in {Path.cwd()}")
