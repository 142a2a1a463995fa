"""Attention policies end to end: a small decoder reads long prompts and writes behind them.

    python -m benchmarks attention-engine

The engine without its server, as in ``generation``; a random Qwen2 of which attention is half of a
prefill of 32k tokens, as of a 1.5B model's. Every policy reads the same prompts, in turns; times
and ratios are the medians of the rounds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.generation_engine import Driver, decoder
from benchmarks.generation_models import ModelSize, write_model
from longspan.worker.served import nobody

MODEL = ModelSize(hidden=128, intermediate=16_384, layers=4, heads=2, kv_heads=1, vocabulary=32_000)
ROUNDS = {32_768: 3, 130_048: 1}
"""Of the prompts of each length."""
POLICIES = ("full", "window", "hybrid", "hierarchical")
NEW_TOKENS = 33
TASK_TOKENS = 64
MIB = 1 << 20
PREFILL, TOKEN = "prefill s", "ms a token"
Row = dict[str, object]


def measure(driver: Driver, tokens: int, policy: str, seed: int) -> Row:
    """One prompt and its answer."""
    prompt = np.random.default_rng(seed).integers(0, MODEL.vocabulary, tokens).tolist()
    started = time.perf_counter()
    driver.open(prompt, NEW_TOKENS, attention=policy, task_start=tokens - TASK_TOKENS)
    first = 0.0
    for events in driver.steps():
        for event in events:
            match event.WhichOneof("kind"):
                case "generated":
                    first = first or time.perf_counter() - started
                case "finished":
                    end, last = event.finished, time.perf_counter() - started
                case "failed":
                    raise RuntimeError(event.failed.message)
    return {
        "tokens": tokens,
        "policy": policy,
        PREFILL: first,
        TOKEN: (last - first) / (NEW_TOKENS - 1) * 1e3,
        "keys seen": f"{end.seen_share:.1%}",
        "KV MiB": round(end.kv_bytes / MIB, 1),
    }


def compared(rounds: Sequence[dict[str, Row]]) -> Iterator[Row]:
    """One row a policy, of rounds by policy."""
    for policy in POLICIES:
        row = dict(rounds[0][policy])
        for column in (PREFILL, TOKEN):
            times = [float(str(one[policy][column])) for one in rounds]
            full = [float(str(one["full"][column])) for one in rounds]
            ratios = [whole / own for whole, own in zip(full, times, strict=True)]
            row[column] = round(median(times), 2)
            row[f"full / this, {column}"] = round(median(ratios), 2)
        yield row


def rows() -> Iterator[Row]:
    """One row a length and policy, compared with full attention."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_model(MODEL, Path(name))
        flags = ("--kv-bytes", str(2 << 30))
        driver = Driver(decoder(str(folder), "float32", "cpu", *flags).open(nobody))
        measure(driver, 2048, "full", 0)
        for tokens, count in ROUNDS.items():
            yield from compared(
                [
                    {policy: measure(driver, tokens, policy, tokens + n) for policy in POLICIES}
                    for n in range(count)
                ]
            )


def main() -> list[Row]:
    """Run the measurement."""
    return list(rows())


if __name__ == "__main__":
    for row in rows():
        print(row, flush=True)
