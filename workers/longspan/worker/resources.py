"""What this process takes of the machine."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from longspan.internal.v1 import worker_service_pb2 as pb

STATM = Path("/proc/self/statm")
KIB = 1024

Look = Callable[[], pb.Resources]


def process_resources() -> pb.Resources:
    """The memory of a process that keeps nothing and has no GPU."""
    return pb.Resources(memory_bytes=resident_bytes())


def resident_bytes() -> int:
    """Resident memory; where the system does not say, the most that it ever was."""
    try:
        return int(STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest * KIB
