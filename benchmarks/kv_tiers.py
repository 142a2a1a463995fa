"""KV pages on disk: is waiting for them ever slower than the better of loading and computing?

    python -m benchmarks kv-tiers

The worker's own decoder, engine and SSD store in one process. A document is computed once; then
its first token is waited for with an empty page pool: with nothing below it (computing), with
everything loaded (loading), and as the engine chooses. The throttled disk is the same one, each
read stretched to 50 MB/s. The model has much KV for little to compute, so that both come close.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np

from benchmarks.generation_engine import Driver, decoder
from benchmarks.generation_models import ModelSize, write_model
from longspan.blobstore.store import BlobStore
from longspan.worker.served import Served, nobody
from longspan.worker.tiers.mover import Mover

SIZE = ModelSize(hidden=256, intermediate=512, layers=4, heads=4, kv_heads=4, vocabulary=32_000)
"""8 KiB of KV a token in float32."""
LENGTHS = {4096: 5, 16_384: 3, 65_536: 1}
THROTTLED = 50e6
WARM_TOKENS = 4096
KV_BYTES = 1200 << 20
Row = dict[str, object]


def first_token_s(served: Served, prompt: Sequence[int]) -> float:
    """Seconds until the first token of a prompt, on a stream of its own."""
    driver = Driver(served.open(nobody))
    started = time.perf_counter()
    driver.open(prompt, 1)
    for events in driver.steps():
        if any(event.WhichOneof("kind") == "generated" for event in events):
            return time.perf_counter() - started
        if not events:
            time.sleep(0.0002)
    raise RuntimeError("no token")


@contextmanager
def disk_of(bytes_per_s: float | None) -> Iterator[None]:
    """Every read of a store is stretched to what a slow disk takes."""
    read_into = BlobStore.read_into

    def slow(store: BlobStore, key: bytes, buffer: memoryview) -> bool:
        assert bytes_per_s is not None
        until = time.perf_counter() + buffer.nbytes / bytes_per_s
        whole = read_into(store, key, buffer)
        time.sleep(max(until - time.perf_counter(), 0.0))
        return whole

    if bytes_per_s is None:
        yield
        return
    with mock.patch.object(BlobStore, "read_into", slow):
        yield


def waited_s(folder: Path, prompts: Sequence[Sequence[int]], *flags: str) -> float:
    """Seconds until the first token of the last prompt, in a worker that starts empty."""
    served = decoder(str(folder), "float32", "cpu", "--kv-bytes", str(KV_BYTES), *flags)
    took = [first_token_s(served, prompt) for prompt in prompts][-1]
    served.close()
    return took


def measure(folder: Path, disk: Path, tokens: int, rounds: int, bytes_per_s: float | None) -> Row:
    """One length on one disk; every round has the three ways side by side."""
    numbers = np.random.default_rng(tokens)
    stored = ["--kv-disk", str(disk), "--kv-disk-floor", "0"]
    prompt = numbers.integers(0, SIZE.vocabulary, tokens).tolist()
    # A worker that has computed and loaded something before knows what both cost.
    warm = numbers.integers(0, SIZE.vocabulary, WARM_TOKENS).tolist()
    waited_s(folder, [warm], *stored)
    waited_s(folder, [prompt], *stored)
    took: dict[str, list[float]] = {"computing": [], "loading": [], "chosen": []}
    with disk_of(bytes_per_s):
        for _ in range(rounds):
            took["computing"].append(waited_s(folder, [warm, prompt]))
            with mock.patch.object(Mover, "load_s", 0.0):
                took["loading"].append(waited_s(folder, [warm, prompt], *stored))
            took["chosen"].append(waited_s(folder, [warm, prompt], *stored))
    computing, loading, chosen = (median(took[way]) for way in took)
    return {
        "tokens": tokens,
        "disk": f"{bytes_per_s / 1e6:.0f} MB/s" if bytes_per_s else "as it is",
        "computing s": round(computing, 3),
        "loading s": round(loading, 3),
        "chosen s": round(chosen, 3),
        "chosen / better of both": round(chosen / min(computing, loading), 3),
    }


def main() -> list[Row]:
    """Run the measurement."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = write_model(SIZE, Path(name) / "model")
        for bytes_per_s in (None, THROTTLED):
            for tokens, rounds in LENGTHS.items():
                disk = Path(name) / f"disk-{tokens}-{bytes_per_s}"
                rows.append(measure(folder, disk, tokens, rounds, bytes_per_s))
                print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
