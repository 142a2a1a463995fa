"""What the engine costs beside its model: time per step, KV memory per token, memory over time.

python -m benchmarks generation-costs
"""

from __future__ import annotations

import ctypes
import gc
import random
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.generation_engine import Driver, decoder
from benchmarks.generation_models import TINY, ModelSize, write_model
from benchmarks.peers.protocol import Work
from longspan.worker.generation.limits import StepLimits
from longspan.worker.generation.outcomes import Sampled
from longspan.worker.generation.plan import SequenceId
from longspan.worker.generation.scheduler import Scheduler
from longspan.worker.generation.sequence import SequenceSpec
from longspan.worker.kv.chain import KeySpace
from longspan.worker.kv.pages import PageTable
from longspan.worker.served import nobody

SEQUENCES = 32
STEPS = 512
PAGES = 40_000
CONTEXTS = (512, 4096, 65_536)
MIB = 1 << 20
FAT = ModelSize(hidden=1024, intermediate=64, layers=4, heads=16, kv_heads=16, vocabulary=32_000)
"""Much KV, little to compute: 32 KiB a token in float32."""
FAT_TOKENS = 4096
FAT_SEQUENCES = 8
REQUESTS = 1000
WARM_REQUESTS = 200
Row = dict[str, object]


def step_times(context_tokens: int, last_tokens: int) -> list[float]:
    """Seconds of plan and commit of 31 sequences that decode and one of another length."""
    table = PageTable(PAGES)
    scheduler = Scheduler(StepLimits(), table, context_tokens=1 << 20)
    keys = KeySpace(tenant="t", fingerprint="f", dtype="float32", policy="full", layout=1)
    numbers = np.random.default_rng(0)

    def opened(number: int, tokens: int) -> None:
        prompt = numbers.integers(0, 32_000, tokens, np.uint32)
        spec = SequenceSpec(
            sequence_id=SequenceId(number),
            keys=keys,
            prompt=prompt,
            sealed=True,
            delivered=prompt[:0],
            max_tokens=1 << 16,
            priority=2,
            deadline_s=None,
        )
        scheduler.open(spec, 0.0)

    def step(now: float) -> None:
        plan = scheduler.plan(now)
        scheduler.outcomes()
        assert plan is not None
        scheduler.commit(plan, {one: Sampled(7, None) for one in plan.sampled})

    for number in range(SEQUENCES - 1):
        opened(number, context_tokens)
    now = 0.0
    while len(scheduler.waiting):
        step(now := now + 0.01)
    opened(SEQUENCES, last_tokens)
    times = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step(now := now + 0.01)
        times.append(time.perf_counter() - started)
    return times


def scheduler_rows() -> list[Row]:
    """Two rows a context."""
    rows: list[Row] = []
    for context in CONTEXTS:
        for kind, tokens in (("all decode", 1), ("one is read", 1 << 19)):
            times = sorted(step_times(context, tokens))
            rows.append(
                {
                    "what": f"plan + commit, {SEQUENCES} of {context} tokens, {kind}",
                    "median": f"{1000 * median(times):.3f} ms",
                    "longest": f"{1000 * times[-1]:.3f} ms",
                    "p99": f"{1000 * times[int(len(times) * 0.99)]:.3f} ms",
                }
            )
    return rows


def kv_row(folder: Path) -> Row:
    """How much the process grows with the tokens that it holds, against the formula."""
    write_model(FAT, folder)
    expected = FAT.kv_floats() * 4
    kv_bytes = expected * FAT_TOKENS * (FAT_SEQUENCES + 4)
    driver = Driver(
        decoder(str(folder), "float32", "cpu", "--kv-bytes", str(kv_bytes)).open(nobody)
    )
    numbers = random.Random(0)

    def read(sequences: int) -> None:
        for _ in range(sequences):
            driver.answer(Work([_prompt(numbers, FAT_TOKENS)], 1))

    read(2)
    before = memory_bytes()
    read(FAT_SEQUENCES)
    measured = (memory_bytes() - before) / (FAT_TOKENS * FAT_SEQUENCES)
    return {
        "what": "KV memory of a token",
        "measured": f"{measured:.0f} B",
        "formula": f"{expected} B",
        "difference": f"{measured / expected - 1:+.2%}",
    }


def memory_row(folder: Path) -> Row:
    """The process's own memory after 200 requests and after 1,000 of the same kind."""
    write_model(TINY, folder)
    driver = Driver(decoder(str(folder), "float32", "cpu", "--kv-bytes", str(8 * MIB)).open(nobody))
    numbers = random.Random(0)
    sizes = []
    for number in range(REQUESTS):
        if number == WARM_REQUESTS:
            sizes.append(memory_bytes())
        driver.answer(Work([_prompt(numbers, numbers.randrange(100, 600))], 4))
    sizes.append(memory_bytes())
    return {
        "what": f"own memory after {WARM_REQUESTS} and {REQUESTS} requests",
        "measured": " and ".join(f"{size / MIB:.1f} MiB" for size in sizes),
        "difference": f"{(sizes[1] - sizes[0]) / MIB:+.1f} MiB",
    }


def _prompt(numbers: random.Random, tokens: int) -> list[int]:
    return [numbers.randrange(32_000) for _ in range(tokens)]


def memory_bytes() -> int:
    """The process's own resident memory: no file's pages, nothing that the allocator only keeps."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()
    line = next(line for line in lines if line.startswith("Anonymous:"))
    return int(line.split()[1]) * 1024


def main() -> list[Row]:
    """Run the measurements."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [*scheduler_rows(), kv_row(folder / "fat"), memory_row(folder / "tiny")]


if __name__ == "__main__":
    for row in main():
        print(row)
