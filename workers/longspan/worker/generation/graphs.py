"""Whether a decoder's decode steps can be captured as CUDA graphs."""

from __future__ import annotations

import sys

import torch

from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.generation.buckets import decode_buckets
from longspan.worker.generation.decode_graph import DecodeGraphs
from longspan.worker.generation.runner import Runner


def capture_graphs(
    runner: Runner, batches: tuple[int, int, int], context_tokens: int, *, scratch_page: int
) -> DecodeGraphs | None:
    """The graphs of all buckets; None on a CPU, or where the model resists.

    ``batches`` are the smallest, the optimal and the largest decode batch. A model resists if
    its shapes depend on its numbers, as routed experts do.
    """
    if not runner.paged_kernel or runner.device.type != "cuda":
        return None
    blocks = -(-context_tokens // PAGE_TOKENS)
    buckets = decode_buckets(*batches)
    graphs = DecodeGraphs(
        runner.decode, buckets, runner.device, blocks=blocks, scratch_page=scratch_page
    )
    try:
        graphs.warm_up()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        print(f"longspan-worker: decode without CUDA graphs: {reason}", file=sys.stderr)
        torch.cuda.synchronize(runner.device)
        return None
    return graphs
