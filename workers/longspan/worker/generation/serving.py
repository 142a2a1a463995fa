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
from longspan.worker.generation.attention_maps import read_maps
from longspan.worker.generation.below import Below
from longspan.worker.generation.graphs import capture_graphs
from longspan.worker.generation.kv_memory import summary_bytes
from longspan.worker.generation.limits import StepLimits
from longspan.worker.generation.memory import Memory
from longspan.worker.generation.outputs import Outputs
from longspan.worker.generation.policies import Policies, policies_for
from longspan.worker.generation.policy_check import policy_check, unlike
from longspan.worker.generation.pool_opening import open_pool
from longspan.worker.generation.runner import Runner
from longspan.worker.generation.scheduler import Scheduler
from longspan.worker.generation.self_check import self_check
from longspan.worker.generation.work import Work
from longspan.worker.generation.workload import Generation, KvSizes, PageSpace
from longspan.worker.gpus import open_gpu
from longspan.worker.kv.pages import PageTable
from longspan.worker.memory import host_free_bytes
from longspan.worker.models import seam
from longspan.worker.models.decoder_files import DecoderFiles, find_decoder
from longspan.worker.models.few_rows import CACHED_BYTES, FewRows, measure_few_rows
from longspan.worker.models.fused_decoder import FusedDecoder, is_known
from longspan.worker.models.joined_weight import can_join, join_weights
from longspan.worker.models.loading import load_decoder
from longspan.worker.models.packed_linear import can_pack, pack_linears, packed_products
from longspan.worker.models.probe import LayerShape, probe
from longspan.worker.models.upcast_linear import upcast_linears
from longspan.worker.options import WorkerOptions
from longspan.worker.resources import resident_bytes
from longspan.worker.served import Served, Wake
from longspan.worker.tiers.holdings import Holdings
from longspan.worker.tiers.opening import open_tiers
from longspan.worker.tiers.usage import HostUsage, KvUsage

LAYOUT = 1
"""Version of what a page holds; part of every page's key."""

CLOSE_S = 2.0
"""How long a worker that stops goes on storing pages."""

PLAIN_SHARE = 8
"""Plain weights may lie beside packed ones where they take at most that part of free memory."""

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
    running = quicken(model, dtype, device, compiled=options.compile)
    shapes = probe(model, device)
    maps = None
    if options.attention_maps is not None:
        maps = read_maps(options.attention_maps, shapes, files.fingerprint)
    policies = policies_for(options.attention, shapes, files.fingerprint, dtype.itemsize, maps)
    limits = step_limits(device, options.step_tokens, weights, shapes)
    kept = step_bytes(model, limits.budget_tokens, dtype) if device.type == "cuda" else 0
    opened = open_pool(policies, shapes, dtype, device, options, maps, kept_bytes=kept)
    pool, frames = opened.layers, opened.frames
    widest = max(max(shape.d, shape.dv) for shape in shapes)
    backend = select_backend(device, dtype, widest)
    for index in unlike(pool):
        policy_check(backend, pool[index], shapes[index].heads)
    runner = Runner(running, pool, backend)
    table = PageTable(frames, policies.sizes, pages=opened.numbers)
    context = min(files.context_tokens, table.total * PAGE_TOKENS)
    if options.compile and running is model:
        runner.compile()
    token_s = self_check(runner, model, vocabulary=files.vocabulary)
    runner.graphs = capture_graphs(runner, options.decode_batches, context, scratch_page=frames)
    space = PageSpace(files.fingerprint, _name(dtype), LAYOUT)
    summaries = {
        name: summary_bytes(policies.get(name).policy, shapes, dtype) for name in policies.names
    }
    outputs = Outputs(files)
    if device.type == "cpu":
        keep_freed()
    mover = open_tiers(options, pool, policies.sizes)
    holdings = Holdings(table, mover)
    below = None
    if mover is not None:
        below = Below(table, PAGE_TOKENS, mover, Work(limits.parity_tokens), token_s)

    def open_stream(wake: Wake) -> Generation:
        holdings.wake = wake
        if mover is not None:
            mover.wake = wake
        scheduler = Scheduler(
            limits, table, context_tokens=context, positions=files.context_tokens, below=below
        )
        sizes = KvSizes(policies.frame_bytes, summaries)
        return Generation(runner, scheduler, table, outputs, space, policies, sizes, holdings)

    gpu = open_gpu(device)
    usage = KvUsage(
        table,
        policies.frame_bytes * table.page_frames,
        mover,
        HostUsage(table, pool, opened.host_page_bytes) if opened.host_page_bytes else None,
    )

    def look() -> pb.Resources:
        resources = pb.Resources(memory_bytes=resident_bytes(), gpus=gpu.read())
        usage.tell(resources)
        return resources

    def close() -> None:
        holdings.close()
        if below is not None and mover is not None:
            below.drain(CLOSE_S)
            mover.close()

    on_host = table.numbers * opened.host_page_bytes
    ready = _ready(files, dtype, device, table, policies, kv_host_bytes=on_host)
    return Served(ready=ready, open=open_stream, close=close, look=look)


def quicken(
    model: torch.nn.Module, dtype: torch.dtype, device: torch.device, *, compiled: bool
) -> torch.nn.Module:
    """The model in the form that this processor computes fastest; its layers are changed.

    ``compiled`` says that torch.compile will get the model; what is fused for a GPU needs it not.
    """
    if device.type == "cuda":
        return _fused_on_gpu(model)
    if dtype.itemsize == 2 and not (dtype is torch.bfloat16 and has_bfloat16(device)):
        upcast_linears(model)
    elif not compiled and can_pack(dtype):
        few = _few_rows(dtype, inner_weights(model) * dtype.itemsize)
        if not pack_linears(model, few, keep=(seam.LATENT_WEIGHT,)) or not is_known(model):
            return model
        products = packed_products(model)
        return FusedDecoder(model, products) if products else model
    return model


def _fused_on_gpu(model: torch.nn.Module) -> torch.nn.Module:
    if not is_known(model) or not can_join(model):
        return model
    fused = FusedDecoder(model, join_weights(model), direct=True)
    fused.compile_elementwise()
    return fused


def _few_rows(dtype: torch.dtype, weight_bytes: int) -> FewRows:
    if weight_bytes < CACHED_BYTES:
        return FewRows()
    free = host_free_bytes()
    spare = free is not None and weight_bytes <= free // PLAIN_SHARE
    return measure_few_rows(dtype, may_keep_plain=spare)


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


def _ready(
    files: DecoderFiles,
    dtype: torch.dtype,
    device: torch.device,
    table: PageTable,
    policies: Policies,
    *,
    kv_host_bytes: int,
) -> pb.Event:
    memory = Memory(table, PAGE_TOKENS)

    def longest_tokens(name: str) -> int:
        pages = memory.longest(policies.get(name).retentions)
        return min(files.context_tokens, pages * PAGE_TOKENS)

    return pb.Event(
        ready=pb.Ready(
            model=files.name,
            fingerprint=files.fingerprint,
            dtype=_name(dtype),
            max_tokens=longest_tokens(""),
            device=str(device),
            kv_tokens=table.total * PAGE_TOKENS,
            kv_host_bytes=kv_host_bytes,
            attention=[
                pb.AttentionPolicy(name=name, max_tokens=longest_tokens(name))
                for name in policies.names
            ],
        )
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
