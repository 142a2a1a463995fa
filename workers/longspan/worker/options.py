"""The worker's command line, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """See ``__main__`` for what each means; None is the default by device."""

    role: str
    socket: Path
    model: str
    dtype: str
    threads: int | None
    device: str
    step_tokens: int | None
    kv_bytes: int | None
    kv_tokens: int | None
    replicas: int
    compile: bool
    decode_batches: tuple[int, int, int]
    attention: str
    kv_ram_bytes: int = 0
    kv_disk: Path | None = None
    kv_disk_bytes: int = 0
    kv_disk_floor: int = 0
    kv_disk_share: float = 1.0
    tracing_endpoint: str | None = None
