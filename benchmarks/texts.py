"""Long texts to measure with: real books where the machine has them, else the examples."""

from __future__ import annotations

import json
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LONG_TEXTS = REPOSITORY.parent / "shared" / "data" / "longtext"


def long_text(size_chars: int) -> str:
    """English prose of this length, repeated where there is not enough of it."""
    text = _book() or _examples()
    return (text * (size_chars // len(text) + 1))[:size_chars]


def _book() -> str:
    path = LONG_TEXTS / "books.jsonl.zst"
    if not path.exists():
        return ""
    import zstandard

    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        records = [json.loads(line) for line in stream.read().decode().split("\n") if line]
    return str(next(record["text"] for record in records if record["lang"] == "en"))


def _examples() -> str:
    names = ("annual-report.md", "services-agreement.md")
    return "\n\n".join((REPOSITORY / "examples" / name).read_text("utf-8") for name in names)
