"""Real data beside the checkout, where the machine has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"
EXAMPLES = REPOSITORY / "examples"


def shared_data(*parts: str) -> Path:
    """Path of a file or folder of the shared data; skips the test where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no shared data here: {Path(*parts)}")
    return path


def read_jsonl_zst(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a zstd-compressed JSON Lines file."""
    import zstandard

    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        for line in stream.read().decode("utf-8").split("\n"):
            if line:
                yield json.loads(line)
