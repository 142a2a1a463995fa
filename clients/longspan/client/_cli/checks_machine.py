"""Looks at the machine: Python, cores, memory, instructions, disk."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from longspan.client._cli.checks import Finding, Verdict
from longspan.client._cli.hardware import cpu_flags, cpu_has_bfloat16, memory_bytes

GIB = 1 << 30
MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 64 << 20
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd")


def machine() -> Iterator[Finding]:
    """Everything about the machine but its accelerators."""
    yield _python()
    yield Finding("cpu", Verdict.OK, f"{_cores()} cores, {platform.machine()}")
    yield Finding("memory", Verdict.OK, _memory())
    yield _cpu_features()
    yield _cpu_bfloat16()
    yield _disk()


def _python() -> Finding:
    verdict = Verdict.OK if sys.version_info >= MIN_PYTHON else Verdict.BROKEN
    return Finding("python", verdict, f"{platform.python_version()} ({sys.executable})")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    memory = memory_bytes()
    return "unknown" if memory is None else f"{memory / GIB:.1f} GiB"


def _cpu_features() -> Finding:
    flags = cpu_flags()
    if flags is None:
        return Finding("cpu features", Verdict.ABSENT, "unknown on this system")
    found = [name for name in INSTRUCTIONS if name in flags]
    verdict = Verdict.OK if found else Verdict.ABSENT
    return Finding("cpu features", verdict, ", ".join(found) or f"none of {INSTRUCTIONS}")


def _cpu_bfloat16() -> Finding:
    if cpu_has_bfloat16():
        return Finding("cpu bfloat16", Verdict.OK, "models run in bfloat16 on the CPU")
    detail = "neither avx512_bf16 nor AMX; models run in float32 on the CPU"
    return Finding("cpu bfloat16", Verdict.ABSENT, detail)


def _disk() -> Finding:
    free_bytes = shutil.disk_usage(Path.cwd()).free
    verdict = Verdict.OK if free_bytes >= MIN_FREE_BYTES else Verdict.BROKEN
    return Finding("disk", verdict, f"{free_bytes / GIB:.1f} GiB free in {Path.cwd()}")
