"""A decoder, ready to serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.allocator import keep_freed
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.select import select_backend
from longspan.worker.devices import choose_dtype, has_bfloat16, open_device
from longspan.worker.failures import NoMemory
from longspan.worker.generation.graphs import capture_graphs
from longspan.worker.generation.kv_memory import page_bytes, page_count
from longspan.worker.generation.limits import StepLimits
from longspan.worker.generation.outputs import Outputs
from longspan.worker.generation.policies import Policies, policies_for
from longspan.worker.generation.policy_check import policy_check
from longspan.worker.generation.runner import Runner
from longspan.worker.generation.scheduler import Scheduler
from longspan.worker.generation.self_check import self_check
from longspan.worker.generation.workload import Generation, PageSpace
from longspan.worker.kv.pages import PageTable
from longspan.worker.models import seam
from longspan.worker.models.decoder_files import DecoderFiles, find_decoder
from longspan.worker.models.loading import load_decoder
from longspan.worker.models.packed_linear import pack_linears
from longspan.worker.models.probe import LayerShape, probe
from longspan.worker.models.upcast_linear import upcast_linears
from longspan.worker.options import WorkerOptions
from longspan.worker.served import Served

LAYOUT = 1
"""Version of what a page holds; part of every page's key."""

CPU_STEP_WORK = 10**11
ACTIVATIONS = 4
"""Rows of the widest inner layer alive at once: gate, up, their product, attention."""

LEAST_CPU_STEP, LARGEST_CPU_STEP = 256, 1024
"""Products of one step on a CPU, and its tokens: enough for good matrix products, little enough
that a question need not wait long for a document's chunk."""


def serve_decoder(options: WorkerOptions) -> Served:
    """Load, warm up and check the decoder.

    Raises:
        StartFailure: it cannot be loaded as configured.
    """
    device = open_device(options.device)
    files = find_decoder(Path(options.model))
    dtype = choose_dtype(options.dtype, device)
    model = load_decoder(files, device=options.device, dtype=options.dtype)
    weights = inner_weights(model)
    if device.type == "cpu":
        quicken(model, dtype, device, compiled=options.compile)
    shapes = probe(model, device)
    policies = policies_for(options.attention, shapes)
    limits = step_limits(device, options.step_tokens, weights, shapes)
    pages = page_count(
        shapes,
        dtype,
        device,
        options.kv_bytes,
        kv_tokens=options.kv_tokens,
        replicas=options.replicas,
        kept_bytes=step_bytes(model, limits.budget_tokens, dtype) if device.type == "cuda" else 0,
    )
    # One page more than is handed out: rows that only pad a decode batch use it.
    runner = _runner(model, shapes, pages + 1, dtype, device)
    context = min(files.context_tokens, pages * PAGE_TOKENS)
    if options.compile:
        runner.compile()
    self_check(runner, model, vocabulary=files.vocabulary)
    runner.graphs = capture_graphs(runner, options.decode_batches, context, scratch_page=pages)
    space = PageSpace(files.fingerprint, _name(dtype), LAYOUT)
    bytes_of = {name: page_bytes(policies.get(name), shapes, dtype) for name in policies.names}
    outputs = Outputs(files)
    table = PageTable(pages)
    if device.type == "cpu":
        keep_freed()
    return Served(
        ready=_ready(files, dtype, device, pages, context, policies),
        open=lambda: Generation(
            runner,
            Scheduler(limits, table, context_tokens=context, positions=files.context_tokens),
            table,
            outputs,
            space,
            policies,
            page_bytes=bytes_of,
        ),
    )


def quicken(
    model: torch.nn.Module, dtype: torch.dtype, device: torch.device, *, compiled: bool
) -> None:
    """Linear layers in the form that this processor computes fastest."""
    if dtype.itemsize == 2 and not (dtype is torch.bfloat16 and has_bfloat16(device)):
        upcast_linears(model)
    elif not compiled:
        pack_linears(model, keep=(seam.LATENT_WEIGHT,))


def step_limits(
    device: torch.device, step_tokens: int | None, weights: int, shapes: Sequence[LayerShape]
) -> StepLimits:
    """The step's size: as asked, else by device and model.

    Parity is where attention costs as many operations as the weights do for one token.
    """
    default = StepLimits()
    tokens = default.budget_tokens
    if device.type == "cpu":
        tokens = min(max(CPU_STEP_WORK // weights, LEAST_CPU_STEP), LARGEST_CPU_STEP)
    return StepLimits(
        budget_tokens=step_tokens or tokens,
        sequences=default.sequences,
        parity_tokens=max(1, weights // sum(s.heads * (s.d + s.dv) for s in shapes)),
    )


def step_bytes(model: torch.nn.Module, tokens: int, dtype: torch.dtype) -> int:
    """What the activations of a step take at most: a few of its widest inner rows."""
    linears = [m.out_features for m in model.modules() if isinstance(m, torch.nn.Linear)]
    inner = [width for width in linears if width < max(linears)] or linears
    return ACTIVATIONS * tokens * max(inner, default=0) * dtype.itemsize


def inner_weights(model: torch.nn.Module) -> int:
    """Weights that every token meets; of routed experts all count, though few are used."""
    embedded = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)
    }
    return max(1, sum(p.numel() for p in model.parameters() if id(p) not in embedded))


def _runner(
    model: torch.nn.Module,
    shapes: list[LayerShape],
    pages: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Runner:
    widest = max(max(shape.d, shape.dv) for shape in shapes)
    try:
        layers = [shape.pages(pages, dtype=dtype, device=device) for shape in shapes]
    except (RuntimeError, torch.OutOfMemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise NoMemory(f"out of memory for {pages} KV pages: {reason}") from error
    backend = select_backend(device, dtype, widest)
    policy_check(backend, layers[-1], shapes[-1].heads)
    return Runner(model, layers, backend)


def _ready(
    files: DecoderFiles,
    dtype: torch.dtype,
    device: torch.device,
    pages: int,
    context: int,
    policies: Policies,
) -> pb.Event:
    return pb.Event(
        ready=pb.Ready(
            model=files.name,
            fingerprint=files.fingerprint,
            dtype=_name(dtype),
            max_tokens=context,
            device=str(device),
            kv_tokens=pages * PAGE_TOKENS,
            attention=[
                pb.AttentionPolicy(
                    name=name,
                    max_tokens=files.context_tokens if policies.get(name).drops else context,
                )
                for name in policies.names
            ],
        )
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
