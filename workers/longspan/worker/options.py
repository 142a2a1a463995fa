"""The worker's command line, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self


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
    kv_host_bytes: int | None = None
    host_replicas: int = 1
    attention_maps: Path | None = None
    kv_ram_bytes: int = 0
    kv_disk: Path | None = None
    kv_disk_bytes: int = 0
    kv_disk_floor: int = 0
    kv_disk_share: float = 1.0
    tracing_endpoint: str | None = None

    @classmethod
    def of(cls, parsed: Mapping[str, Any]) -> Self:
        """The options among all that the command line says."""
        return cls(**{field.name: parsed[field.name] for field in fields(cls)})
