"""Whether a decoder's decode steps can be captured as CUDA graphs."""

from __future__ import annotations

import sys

import numpy as np
import torch

from longspan.worker.attention.policy import FULL_MODEL
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.generation.buckets import decode_buckets
from longspan.worker.generation.decode_graph import DecodeGraphs, decode_inputs
from longspan.worker.generation.runner import Runner

TOLERANCE = 0.05
"""Of a replayed step's logits, of the largest: kernels may be others for other batches."""


def capture_graphs(
    runner: Runner, batches: tuple[int, int, int], context_tokens: int, *, scratch_page: int
) -> DecodeGraphs | None:
    """The graphs of all buckets; None on a CPU, or where the model resists.

    ``batches`` are the smallest, the optimal and the largest decode batch. A model resists if
    its shapes depend on its numbers, as routed experts do.
    """
    if runner.device.type != "cuda":
        return None
    if not runner.paged_kernel:
        several = runner.frames > 1
        _say("its layers' pages lie in several groups" if several else "no paged kernel")
        return None
    blocks = -(-context_tokens // PAGE_TOKENS)
    buckets = decode_buckets(*batches)
    graphs = DecodeGraphs(
        runner.decode, buckets, runner.device, blocks=blocks, scratch_page=scratch_page
    )
    try:
        graphs.warm_up()
    except RuntimeError as error:
        _say(str(error).partition("\n")[0])
        torch.cuda.synchronize(runner.device)
        return None
    if not _agrees(runner, graphs, scratch_page):
        _say("a replayed step differs from a plain one")
        return None
    return graphs


def _agrees(runner: Runner, graphs: DecodeGraphs, scratch_page: int) -> bool:
    """Whether a graph computes a step as the model does, over the page of no sequence."""
    table = np.array([scratch_page], np.int32)
    rows = AttentionRows(np.array([0]), np.array([1]), [table])
    inputs = decode_inputs(np.array([1], np.uint32), rows)
    plain = runner.decode(inputs.to(runner.device), FULL_MODEL).float()
    replayed = graphs.run(inputs).float()
    return bool((plain - replayed).abs().max() <= TOLERANCE * plain.abs().max())


def _say(reason: str) -> None:
    print(f"longspan-worker: decode without CUDA graphs: {reason}", file=sys.stderr)
