"""``make bench``: every measurement as a table, and as JSON in ``benchmarks/results/``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import (
    answers,
    attention,
    attention_engine,
    attention_gpu,
    blobstore,
    encoder,
    far_states,
    generation,
    generation_costs,
    generation_fairness,
    generation_gpu,
    generation_overlap,
    health,
    idle_uploads,
    kv_tiers,
    observability,
    overload,
    policies_gpu,
    result_cache,
    second_question,
    slow_clients,
    streaming_memory,
    tokenise,
    tracing,
    upload,
)
from benchmarks.recall import far as recall_far
from benchmarks.recall import measure as recall
from benchmarks.trace_replay import measure as traces

RESULTS = Path(__file__).parent / "results"


def measurements(peers: str | None) -> dict[str, Callable[[], Sequence[Any]]]:
    """All measurements by name; ``peers`` is an interpreter that has other engines."""
    return {
        "tokenise": tokenise.main,
        "encoder": encoder.main,
        "answers": answers.main,
        "attention": attention.main,
        "attention-engine": attention_engine.main,
        "attention-gpu": attention_gpu.main,
        "policies-gpu": policies_gpu.main,
        "policies-gpu-1m": partial(policies_gpu.main, policies_gpu.MILLION),
        "far": far_states.main,
        "recall": recall.main,
        "recall-far": recall_far.main,
        "blobstore": blobstore.main,
        "kv-tiers": kv_tiers.main,
        "result-cache": result_cache.main,
        "second-question": second_question.main,
        "traces": traces.main,
        "tracing": tracing.main,
        "upload-throughput": upload.main,
        "idle-uploads": idle_uploads.main,
        "slow-clients": slow_clients.main,
        "overload": overload.main,
        "health": health.main,
        "observability": observability.main,
        "generation": partial(generation.main, peers),
        "generation-overlap": generation_overlap.main,
        "generation-fairness": generation_fairness.main,
        "generation-costs": generation_costs.main,
        "streaming-memory": streaming_memory.main,
        "generation-gpu": generation_gpu.main,
    }


def main(names: Sequence[str], peers: str | None) -> None:
    """Run the named measurements, or all."""
    known = measurements(peers)
    for name in names or known:
        rows = [asdict(row) if is_dataclass(row) else row for row in known[name]()]  # type: ignore[arg-type]
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


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(measurements(None)))
    parser.add_argument(
        "--peers", help="an interpreter that has llama_cpp, gguf and ctranslate2, to compare with"
    )
    options = parser.parse_args()
    unknown = set(options.names) - set(measurements(None))
    if unknown:
        parser.error(f"no measurement is called {min(unknown)}")
    return options


if __name__ == "__main__":
    main(**vars(parse()))
