"""``make bench``: every measurement as a table, and as JSON in ``benchmarks/results/``."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import answers, encoder, health, tokenise, upload

RESULTS = Path(__file__).parent / "results"
MEASUREMENTS: dict[str, Callable[[], Sequence[Any]]] = {
    "tokenise": tokenise.main,
    "encoder": encoder.main,
    "answers": answers.main,
    "upload": upload.main,
    "health": health.main,
}


def main(names: Sequence[str]) -> None:
    """Run the named measurements, or all."""
    for name in names or MEASUREMENTS:
        rows = [asdict(row) if is_dataclass(row) else row for row in MEASUREMENTS[name]()]  # type: ignore[arg-type]
        print(f"\n## {name}\n\n{table(rows)}\n", flush=True)
        RESULTS.mkdir(exist_ok=True)
        record = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "rows": rows}
        (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a Markdown table; their keys are the columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[str(row.get(name, "")) for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    packages = ("grpcio", "tokenizers", "torch", "transformers")
    return {
        "cpu": f"{os.cpu_count()} cores, {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


if __name__ == "__main__":
    main(sys.argv[1:])
