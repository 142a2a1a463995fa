"""Attention policies on a GPU: one layer of R1-Distill-Qwen-7B in bfloat16, on every kernel.

    python -m benchmarks attention-gpu

28 heads and 4 kv heads of 128. Prefill goes in chunks of 16,384 tokens, whose keys are written and
whose pages are selected as in the engine; of a million tokens five chunks are timed at different
depths and those between are interpolated. Decode is the next token of 1 or 8 sequences. Times are
those of a layer whose step has been planned, for decode in a row of 28; what planning takes more is
paid once a step. Full attention, which the ratio compares with, is that of the fastest kernel.
Operations and bytes are those of the keys that a policy sees, not what selecting them takes, which
has rows of its own; bytes a second are those of the CUDA graph where that is faster. ``hybrid`` and
``hierarchical`` are the presets' layers from the first page on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from benchmarks import attention
from benchmarks.attention_layer import (
    Geometry,
    RandomSequences,
    Timed,
    timed,
    timed_graph,
    timed_step,
)
from benchmarks.generation_gpu import Ceilings, ceilings
from longspan.worker.attention.base import Backend
from longspan.worker.attention.layer_plan import SelectingRows, layer_plan
from longspan.worker.attention.policy import LayerPolicy, ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.seen import seen_share
from longspan.worker.attention.select import Kind, choose, make_backend, probe
from longspan.worker.attention.selection import Selection
from longspan.worker.attention.zones import NO_ZONES, Zones

Row = dict[str, object]

POLICIES = {
    name: attention.POLICIES[name]
    for name in ("full", "window", "hybrid", "hybrid preset", "hierarchical")
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured.

    Attributes:
        chunk: tokens of a step of a prefill.
        lengths: prefills of which every chunk is timed.
        longest: one of which ``depths`` chunks are; 0: none.
        decodes: batch and length.
        rounds: of which the median is taken; of the longest there is one.
        layers: of a decode step.
    """

    chunk: int = 16_384
    lengths: Sequence[int] = (32_768, 131_072)
    longest: int = 1_048_576
    depths: int = 5
    decodes: Sequence[tuple[int, int]] = ((1, 131_072), (8, 131_072))
    rounds: int = 3
    layers: int = 28


@dataclass(frozen=True, slots=True)
class Bench:
    """The kernels, the fastest first, and what they run on."""

    backends: Mapping[str, Backend]
    geometry: Geometry
    ceiling: Ceilings
    sizes: Sizes


def installed_backends(device: torch.device, head_dim: int) -> dict[str, Backend]:
    """Every kernel of this machine that is right for it, the one that a worker takes first."""
    machine = probe(device)
    chosen = choose(machine, half=True, head_dim=head_dim)
    found = {str(chosen): make_backend(chosen, capability=machine.capability)}
    for kind in Kind:
        alone = replace(machine, installed=machine.installed & {kind})
        if kind not in (chosen, Kind.TILED) and kind is choose(alone, half=True, head_dim=head_dim):
            found[str(kind)] = make_backend(kind, capability=machine.capability)
    return found


def prefills(bench: Bench) -> Iterator[Row]:
    """One row a length, policy and kernel; of the longest, full attention alone on the others."""
    for tokens in (*bench.sizes.lengths, bench.sizes.longest):
        if not tokens:
            continue
        sequences = RandomSequences(bench.geometry, tokens, bench.sizes.chunk)
        rows = [
            _prefill(bench, sequences, kernel, policy)
            for index, kernel in enumerate(bench.backends.items())
            for policy in POLICIES
            if policy == "full" or index == 0 or tokens != bench.sizes.longest
        ]
        yield from compared(rows)


def _prefill(
    bench: Bench, sequences: RandomSequences, kernel: tuple[str, Backend], policy: str
) -> Row:
    tokens, geometry = sequences.tokens, bench.geometry
    chunks = depths(bench.sizes, tokens)
    times = [
        timed_step(
            partial(sequences.step, kernel[1], POLICIES[policy], start, start + bench.sizes.chunk),
            geometry.device,
            rounds=1 if tokens == bench.sizes.longest else bench.sizes.rounds,
            layers=1,
        )
        for start in (chunk * bench.sizes.chunk for chunk in chunks)
    ]
    took = integrated(chunks, [one.layer for one in times], tokens // bench.sizes.chunk)
    share = seen_share(ModelPolicy(policy, (POLICIES[policy],)), NO_ZONES, tokens, PAGE_TOKENS)
    reached = geometry.operations(share * tokens * (tokens + 1) / 2) / took
    return {
        "kernel": kernel[0],
        "work": f"prefill of {tokens}",
        "policy": policy,
        "ms (longest: interpolated)": round(took * 1e3, 2),
        "keys seen": f"{share:.1%}",
        "reached": f"{reached / 1e12:.0f} TFLOP/s",
        "of the ceiling": f"{reached / bench.ceiling.operations:.0%}",
        "planning a step, ms": round(max(one.plan for one in times) * 1e3, 2),
    }


def depths(sizes: Sizes, tokens: int) -> list[int]:
    """The chunks that are timed: all, or some from the first to the last."""
    count = tokens // sizes.chunk
    if tokens != sizes.longest:
        return list(range(count))
    return sorted({round(x) for x in np.linspace(0, count - 1, sizes.depths)})


def integrated(chunks: Sequence[int], seconds: Sequence[float], count: int) -> float:
    """Of all chunks, those between two that were timed interpolated."""
    return float(np.interp(np.arange(count), chunks, seconds).sum())


def decodes(bench: Bench) -> Iterator[Row]:
    """One row a batch, policy and kernel."""
    for batch, tokens in bench.sizes.decodes:
        sequences = RandomSequences(bench.geometry, tokens, batch, batch=batch)
        rows = [
            _decode(bench, sequences, batch, (name, backend), policy)
            for name, backend in bench.backends.items()
            for policy in POLICIES
            if policy != "hybrid preset"
        ]
        yield from compared(rows)


def _decode(
    bench: Bench,
    sequences: RandomSequences,
    batch: int,
    kernel: tuple[str, Backend],
    policy: str,
) -> Row:
    geometry, sizes, layer = bench.geometry, bench.sizes, POLICIES[policy]
    at = last(sequences)
    step = partial(sequences.step, kernel[1], layer, at, at + 1)
    time: Timed = timed_step(step, geometry.device, rounds=sizes.rounds, layers=sizes.layers)
    graphed = sequences.decode_step(kernel[1], layer, at)
    graph = None
    if graphed is not None:
        graphed()
        graph = timed_graph(graphed, geometry.device, rounds=sizes.rounds)
    keys = layer.depth(at + 1, PAGE_TOKENS)
    reached = batch * keys * geometry.key_bytes() / min(time.layer, graph or time.layer)
    return {
        "kernel": kernel[0],
        "work": f"{batch} tokens behind {sequences.tokens}",
        "policy": policy,
        "ms (longest: interpolated)": round(time.layer * 1e3, 3),
        "keys seen": f"{keys / (at + 1):.1%}",
        "reached": f"{reached / 1e9:.0f} GB/s",
        "of the ceiling": f"{reached / bench.ceiling.bytes:.0%}",
        "planning a step, ms": round(time.plan * 1e3, 2),
        "ms in a CUDA graph": "" if graph is None else round(graph * 1e3, 3),
    }


def last(sequences: RandomSequences) -> int:
    """The position of the token that is decoded: it does not complete a page."""
    return sequences.tokens - 2


def compared(rows: Sequence[Row]) -> list[Row]:
    """Rows of one work beside the fastest full attention among them."""
    column = "ms (longest: interpolated)"
    full = min(float(str(row[column])) for row in rows if row["policy"] == "full")
    # A short one on a CPU may round to nothing.
    return [
        row | {"full's time / its": round(full / max(float(str(row[column])), 1e-3), 2)}
        for row in rows
    ]


def selections(bench: Bench) -> Iterator[Row]:
    """What choosing pages takes of ``hybrid``: a chunk at the end, and a token."""
    tokens = max((*bench.sizes.lengths, bench.sizes.longest))
    for length in sorted({tokens, *(length for _, length in bench.sizes.decodes)}):
        sequences = RandomSequences(bench.geometry, length, bench.sizes.chunk)
        for start, end in ((length - bench.sizes.chunk, length), (length - 2, length - 1)):
            took = _selection_seconds(bench, sequences, POLICIES["hybrid"], start, end)
            yield {
                "work": f"selecting pages for {end - start} tokens at the end of {length}",
                "policy": "hybrid",
                "ms (longest: interpolated)": round(took * 1e3, 3),
            }


def _selection_seconds(
    bench: Bench, sequences: RandomSequences, policy: LayerPolicy, start: int, end: int
) -> float:
    device = bench.geometry.device
    blocks = selecting_rows(sequences, policy, start, end)
    selection = Selection(blocks, device)
    query = sequences.query(end - start)[torch.from_numpy(blocks.queries).to(device)]

    def several() -> None:
        for _ in range(bench.sizes.rounds):
            selection.select(query, sequences.layer)

    several()
    return timed(several, device) / bench.sizes.rounds


def selecting_rows(
    sequences: RandomSequences, policy: LayerPolicy, start: int, end: int
) -> SelectingRows:
    """The blocks of a step that select; there are some."""
    zones = Zones(start, start) if end - start == 1 else NO_ZONES
    return layer_plan(sequences.rows(start, end), [policy], [zones]).selecting[0]


@torch.inference_mode()
def measure(bench: Bench) -> Iterator[Row]:
    """Everything."""
    yield from prefills(bench)
    yield from decodes(bench)
    yield from selections(bench)


def on_gpu() -> Bench:
    """What the module's text says."""
    device = torch.device("cuda")
    geometry = Geometry(28, 4, 128, device, torch.bfloat16)
    ceiling = ceilings()
    torch.cuda.empty_cache()
    return Bench(installed_backends(device, geometry.dim), geometry, ceiling, Sizes())


def rows() -> Iterator[Row]:
    """The rows, as they come; one that says why where nothing can be measured."""
    if not torch.cuda.is_available():
        yield {"work": "skipped: this machine has no CUDA device"}
        return
    bench = on_gpu()
    yield {
        "kernel": torch.cuda.get_device_name(),
        "work": "bfloat16 product, copy",
        "reached": f"{bench.ceiling.operations / 1e12:.0f} TFLOP/s, "
        f"{bench.ceiling.bytes / 1e9:.0f} GB/s",
    }
    yield from measure(bench)


def main() -> list[Row]:
    """Run the measurement."""
    return list(rows())


if __name__ == "__main__":
    for row in rows():
        print(row, flush=True)
