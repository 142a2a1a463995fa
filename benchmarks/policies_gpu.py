"""Attention policies end to end on a GPU: prompts of R1-Distill-Qwen-7B's geometry.

    python -m benchmarks policies-gpu policies-gpu-1m

The engine without its server over random bfloat16 weights: all 28 layers at 32k and 128k tokens,
and 4 layers, of which the presets' share sees everything, at a million. ``all layers select`` is
the layer of ``hybrid`` in every layer, served from a ``policy.json``. Every policy reads the same
prompt, one after the other, once its kernels have been compiled on a shorter one.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.generation_engine import Driver, decoder
from benchmarks.generation_models import QWEN_7B, ModelSize, write_model
from longspan.worker.attention.policy import HYBRID
from longspan.worker.attention.policy_file import PolicyFile, write_policy
from longspan.worker.served import nobody

ALL_SELECT = "all-layers-select"
POLICIES = ("full", "window", "hybrid", "hierarchical", ALL_SELECT)
NEW_TOKENS = 33
TASK_TOKENS = 64
STEP_TOKENS = 16_384
MARGIN = 1024
"""Of a context, behind a prompt that fills it."""
MIB = 1 << 20
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Part:
    """Prompts that one model reads.

    Attributes:
        context: tokens that the model takes.
        policies: the first is ``full``.
        warm_up: tokens that are read first under every policy; enough for pages to be selected.
    """

    size: ModelSize
    context: int
    lengths: Sequence[int]
    warm_up: int = 24_576
    device: str = "cuda:0"
    dtype: str = "bfloat16"
    step_tokens: int = STEP_TOKENS
    policies: Sequence[str] = POLICIES


WHOLE = Part(QWEN_7B, 131_072, (32_768, 131_072 - MARGIN))
MILLION = Part(replace(QWEN_7B, layers=4), 1_048_576, (1_048_576 - MARGIN,))


@dataclass(frozen=True, slots=True)
class Reading:
    """Seconds from a prompt to its first, its second and its last token, and what was seen.

    The step of the second token may capture a CUDA graph, once in a worker's life.
    """

    first: float
    second: float
    last: float
    seen: float
    kv_bytes: int

    @property
    def token(self) -> float:
        """Seconds of one token behind the second."""
        return (self.last - self.second) / (NEW_TOKENS - 2)


def read(driver: Driver, vocabulary: int, tokens: int, policy: str, seed: int) -> Reading:
    """One prompt and its answer.

    Raises:
        RuntimeError: the engine failed; its message.
    """
    prompt = np.random.default_rng(seed).integers(0, vocabulary, tokens).tolist()
    started = time.perf_counter()
    driver.open(prompt, NEW_TOKENS, attention=policy, task_start=tokens - TASK_TOKENS)
    times: list[float] = []
    for events in driver.steps():
        for event in events:
            match event.WhichOneof("kind"):
                case "generated":
                    times.append(time.perf_counter() - started)
                case "finished":
                    end = event.finished
                case "failed":
                    raise RuntimeError(event.failed.message)
    return Reading(times[0], times[1], times[-1], end.seen_share, end.kv_bytes)


def measure(part: Part) -> Iterator[Row]:
    """One row a length and policy, compared with full attention."""
    with tempfile.TemporaryDirectory() as name:
        driver = started(part, Path(name))
        for policy in part.policies:
            read(driver, part.size.vocabulary, part.warm_up, policy, 0)
        for tokens in part.lengths:
            readings = {
                policy: read(driver, part.size.vocabulary, tokens, policy, tokens)
                for policy in part.policies
            }
            for policy, reading in readings.items():
                yield row_of(part, tokens, policy, reading, readings["full"])


def started(part: Part, folder: Path) -> Driver:
    """The engine with all policies."""
    model = write_model(
        part.size,
        folder / "model",
        dtype=part.dtype,
        device=part.device,
        context_tokens=part.context,
    )
    if part.device != "cpu":
        gc.collect()
        torch.cuda.empty_cache()
    policy = folder / "policy.json"
    write_policy(policy, PolicyFile(ALL_SELECT, (HYBRID,) * part.size.layers))
    room = max(part.lengths) + 2 * part.warm_up
    flags = ("--kv-tokens", str(room), "--step-tokens", str(part.step_tokens))
    served = decoder(str(model), part.dtype, part.device, *flags, "--attention", str(policy))
    return Driver(served.open(nobody))


def row_of(part: Part, tokens: int, policy: str, reading: Reading, full: Reading) -> Row:
    """The times beside the full ones."""
    return {
        "layers": part.size.layers,
        "tokens": tokens,
        "policy": policy.replace("-", " "),
        "first token s": round(reading.first, 2),
        "ms a token": round(reading.token * 1e3, 2),
        "full / this, first token": round(full.first / reading.first, 2),
        "full / this, a token": round(full.token / reading.token, 2),
        "keys seen": f"{reading.seen:.1%}",
        "KV MiB": round(reading.kv_bytes / MIB, 1),
    }


def rows(part: Part) -> Iterator[Row]:
    """The rows, as they come; one that says why where nothing can be measured."""
    if not torch.cuda.is_available():
        yield {"policy": "skipped: this machine has no CUDA device"}
        return
    yield from measure(part)


def main(part: Part = WHOLE) -> list[Row]:
    """Run a part."""
    return list(rows(part))


if __name__ == "__main__":
    for one in (WHOLE, MILLION):
        for row in rows(one):
            print(row, flush=True)
