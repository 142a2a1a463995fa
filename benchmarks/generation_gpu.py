"""On a GPU: prefill against the matrix-product ceiling, decode against the memory ceiling.

    python -m benchmarks generation-gpu

R1-Distill-Qwen-1.5B and 7B geometry with random bfloat16 weights, our engine beside
transformers' ``generate`` (prompts of one length as one batch) and ``generate_batch``, both with
flash-attn 2 where it is installed, each in a process of its own, one loaded at a time. The ceilings
are measured: a large bfloat16 product, and a device-to-device copy counted twice. Prefill counts
the operations of the matrix products and of causal attention; decode the bytes of the weights, read
once a step, and of the KV read by every sequence. Nothing is measured where there is no GPU.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks.generation_models import QWEN_1_5B, QWEN_7B, ModelSize, write_model
from benchmarks.peers.process import EngineFailed, EngineProcess
from benchmarks.peers.protocol import Answer, Work

DEVICE = "cuda:0"
DTYPE = "bfloat16"
THREADS = 8
ROUNDS = 2
PREFILLS = (8192, 16_384, 32_768)
DECODES = ((1, 2048), (32, 2048))
NEW_TOKENS = 64
MODELS = {"1.5B": QWEN_1_5B, "7B": QWEN_7B}
ENGINES = {
    "longspan": ("benchmarks.generation_engine",),
    "transformers generate": ("benchmarks.peers.transformers_generate", "{attention}", "together"),
    "transformers generate_batch": ("benchmarks.peers.transformers_batch", "{attention}"),
}
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the device did in this run.

    Attributes:
        operations: a second, in a bfloat16 matrix product.
        bytes: a second, read and written.
    """

    operations: float
    bytes: float


def ceilings() -> Ceilings:
    """Measure both, on random data and in a time long enough for the clock to settle."""
    side = 8192
    left, right = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(1 << 30, device=DEVICE, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    return Ceilings(
        operations=2 * side**3 / _seconds(lambda: torch.matmul(left, right)),
        bytes=2 * source.nbytes / _seconds(lambda: target.copy_(source)),
    )


def _seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(30):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(5):
            work()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - started) / 5)
    return median(times)


def layer_weights(size: ModelSize) -> int:
    """Weights in the matrix products of all layers."""
    kv = size.kv_heads * (size.hidden // size.heads)
    attention = 2 * size.hidden * (size.hidden + kv)
    return size.layers * (attention + 3 * size.hidden * size.intermediate)


def prefill_operations(size: ModelSize, tokens: int) -> float:
    """Of one prompt: products, causal attention, and the logits of its last token."""
    attention = 2 * size.layers * size.hidden * tokens * tokens
    return 2 * layer_weights(size) * tokens + attention + 2 * size.hidden * size.vocabulary


def decode_bytes(size: ModelSize, batch: int, context: int) -> float:
    """Of one step: every weight once, and every sequence's KV."""
    weights = layer_weights(size) + size.hidden * size.vocabulary
    return 2.0 * (weights + batch * context * size.kv_floats())


def prompts(count: int, tokens: int, seed: int) -> list[list[int]]:
    """Random token ids, no two alike."""
    # Longer prompts must not begin as shorter ones do: pages are found again.
    numbers = random.Random(f"{count} {tokens} {seed}")
    return [[numbers.randrange(100_000) for _ in range(tokens)] for _ in range(count)]


def prefill(process: EngineProcess, size: ModelSize, ceiling: Ceilings) -> Iterator[Row]:
    """One prompt a length: the time to its first token."""
    for tokens in PREFILLS:
        times = [
            process.answer(Work(prompts(1, tokens, seed), 1))[0].first_s
            for seed in range(ROUNDS + 1)
        ]
        took = min(times[1:])
        share = prefill_operations(size, tokens) / took / ceiling.operations
        yield {
            "work": f"prefill of {tokens} tokens",
            "tok/s": round(tokens / took),
            "of the ceiling": f"{share:.0%}",
        }


def decode(process: EngineProcess, size: ModelSize, ceiling: Ceilings) -> Iterator[Row]:
    """A batch from its last first token on."""
    for batch, context in DECODES:
        rounds = [
            process.answer(Work(prompts(batch, context, seed), NEW_TOKENS))
            for seed in range(ROUNDS + 1)
        ]
        step_s = min(step_seconds(answers) for answers in rounds[1:])
        reached = decode_bytes(size, batch, context + NEW_TOKENS // 2) / step_s
        yield {
            "work": f"decode of {batch} after {context} tokens",
            "tok/s": round(batch / step_s),
            "of the ceiling": f"{reached / ceiling.bytes:.0%}",
        }


def step_seconds(answers: list[Answer]) -> float:
    """Seconds of one step of all sequences together: those after the last one's first token."""
    late = max(answers, key=lambda answer: answer.first_s)
    return (late.last_s - late.first_s) / (NEW_TOKENS - 1)


def measure(folder: Path) -> Iterator[Row]:
    """All models and engines."""
    ceiling = ceilings()
    torch.cuda.empty_cache()
    yield {
        "engine": torch.cuda.get_device_name(),
        "work": "bfloat16 product, copy",
        "of the ceiling": f"{ceiling.operations / 1e12:.0f} TFLOP/s, "
        f"{ceiling.bytes / 1e12:.2f} TB/s",
    }
    for name, size in MODELS.items():
        model = write_model(size, folder / name, dtype=DTYPE, device=DEVICE)
        torch.cuda.empty_cache()
        for engine, (module, *more) in ENGINES.items():
            about: Row = {"model": name, "engine": engine}
            try:
                arguments = [str(model), DTYPE, DEVICE]
                arguments += [part.format(attention=peers_attention()) for part in more]
                with EngineProcess(module, *arguments, threads=THREADS) as process:
                    for part in (prefill, decode):
                        for row in part(process, size, ceiling):
                            print(about | row, file=sys.stderr, flush=True)
                            yield about | row
            except EngineFailed as failure:
                yield about | {"work": f"failed: {str(failure).rpartition(chr(10))[2]}"}


def peers_attention() -> str:
    """The fastest attention that transformers finds here."""
    from transformers.utils import import_utils

    return "flash_attention_2" if import_utils.is_flash_attn_2_available() else "sdpa"


def main() -> list[Row]:
    """Run the measurement; one row that says why where it cannot."""
    if not torch.cuda.is_available():
        return [{"work": "skipped: this machine has no CUDA device"}]
    with tempfile.TemporaryDirectory() as folder:
        return list(measure(Path(folder)))


if __name__ == "__main__":
    for row in main():
        print(row)
