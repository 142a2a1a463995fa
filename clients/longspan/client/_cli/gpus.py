"""The GPUs of this machine, as the driver's own tool names them."""

from __future__ import annotations

import csv
import shutil
import subprocess
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One CUDA device; ``capability`` as in ``9.0``."""

    name: str
    memory_bytes: int
    capability: str

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes bfloat16."""
        return int(self.capability.partition(".")[0] or 0) >= 8


def gpus_by_tool() -> tuple[Gpu, ...]:
    """The GPUs that the driver's own tool names; works without torch."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = "--query-gpu=name,memory.total,compute_cap"
    command = [tool, query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(done.stdout)


def parse_gpus(table: str) -> tuple[Gpu, ...]:
    """Lines of name, MiB and compute capability; others are passed over."""
    rows = csv.reader(table.splitlines(), skipinitialspace=True)
    return tuple(
        Gpu(row[0], int(row[1]) * MIB, row[2].strip())
        for row in rows
        if len(row) == 3 and row[1].strip().isdecimal()
    )
