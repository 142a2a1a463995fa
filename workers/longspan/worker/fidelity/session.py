"""A decoder with KV pages for one sequence, loaded as a worker loads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from longspan.worker.attention.base import Backend
from longspan.worker.attention.linear.page_sums import make_page_sums
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.select import select_backend
from longspan.worker.devices import choose_dtype, open_device
from longspan.worker.failures import StartFailure
from longspan.worker.fidelity.observed import ObservedModel
from longspan.worker.generation.attention_maps import ServedMaps, read_maps
from longspan.worker.generation.kv_memory import frame_count
from longspan.worker.generation.policies import find_policy
from longspan.worker.generation.runner import Runner
from longspan.worker.generation.self_check import self_check
from longspan.worker.generation.serving import inner_weights, quicken, step_limits
from longspan.worker.models.decoder_files import DecoderFiles
from longspan.worker.models.loading import load_decoder
from longspan.worker.models.probe import LayerShape, probe


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Which model is measured, and where; see the command line of a worker."""

    model: Path
    dtype: str = "auto"
    device: str = "cpu"
    threads: int | None = None
    attention_maps: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Session:
    """What measurements run on.

    Attributes:
        runner: runs steps of the observed decoder.
        observed: the decoder.
        backend: computes its attention.
        shapes: of its layers' caches.
        pages: KV pages of the one sequence that is read at a time.
        step_tokens: tokens of one prefill step, whole pages.
        maps: what linear far states need, if there is something.
    """

    files: DecoderFiles
    runner: Runner
    observed: ObservedModel
    backend: Backend
    shapes: list[LayerShape]
    pages: int
    step_tokens: int
    maps: ServedMaps | None = None

    @property
    def device(self) -> torch.device:
        """Where the decoder runs."""
        return self.runner.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the KV pages."""
        return self.runner.dtype

    def policy(self, name: str) -> ModelPolicy:
        """The policy of this name or file.

        Raises:
            StartFailure: it is unknown, or does not fit the model.
        """
        return find_policy(name, self.shapes, self.files.fingerprint, self.maps)


def open_session(options: ModelOptions, files: DecoderFiles, tokens: int) -> Session:
    """Load a decoder and make pages for a sequence of so many tokens.

    Raises:
        StartFailure: the decoder cannot be loaded or computes nonsense here.
        NoMemory: the pages are larger than the memory that is free.
    """
    device = open_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    model = load_decoder(files, device=options.device, dtype=options.dtype)
    weights = inner_weights(model)
    running = quicken(model, dtype, device, compiled=False)
    shapes = probe(model, device)
    whole = -(-tokens // PAGE_TOKENS) * PAGE_TOKENS
    page_bytes = PAGE_TOKENS * dtype.itemsize * sum(shape.numbers for shape in shapes)
    pages = frame_count(page_bytes, (1,), device, None, kv_tokens=max(whole, 2 * PAGE_TOKENS))
    layers = [
        replace(
            shape.pages(pages, dtype=dtype, device=device), four_bit=shape.four_bit(pages, device)
        )
        for shape in shapes
    ]
    maps = None
    if options.attention_maps is not None:
        maps = read_maps(options.attention_maps, shapes, files.fingerprint)
        layers = with_sums(layers, shapes, maps, device)
    backend = select_backend(device, dtype, max(max(shape.d, shape.dv) for shape in shapes))
    observed = ObservedModel(running)
    runner = Runner(observed, layers, backend)
    self_check(runner, model, vocabulary=files.vocabulary)
    budget = step_limits(device, None, weights, shapes).budget_tokens
    return Session(
        files=files,
        runner=runner,
        observed=observed,
        backend=backend,
        shapes=shapes,
        pages=pages,
        step_tokens=max(budget // PAGE_TOKENS, 1) * PAGE_TOKENS,
        maps=maps,
    )


def with_sums(
    layers: Sequence[LayerPages],
    shapes: Sequence[LayerShape],
    maps: ServedMaps,
    device: torch.device,
) -> list[LayerPages]:
    """The layers with linear states of their pages, where there are maps."""
    found = list(layers)
    for index, own in maps.of(maps.layers, device).items():
        pages, scale = found[index], shapes[index].scale
        assert scale is not None
        sums = make_page_sums(own, pages.keys, pages.values, scale=scale)
        found[index] = replace(pages, page_sums=sums)
    return found


def check_context(files: DecoderFiles, tokens: int) -> None:
    """Refuse a sequence that is longer than the model's positions.

    Raises:
        StartFailure: says how long it may be.
    """
    if tokens > files.context_tokens:
        raise StartFailure(
            f"a sequence of {tokens} tokens is longer than the {files.context_tokens} positions "
            f"of {files.name}"
        )
