"""How long a document each decoder can hold on each device, before it is downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longspan.client._cli.checks import Finding, Verdict
from longspan.client._cli.gpus import Gpu
from longspan.client._cli.hardware import cpu_has_bfloat16, memory_bytes
from longspan.client._cli.known_models import known_models

if TYPE_CHECKING:
    from longspan.worker.models.geometry import ContextFit

KIB, GIB = 1 << 10, 1 << 30
CPU = "cpu"
ASSUMED = "one worker on a device that has nothing else in memory, and no --kv-memory"


class Unreadable(Exception):
    """A model folder does not say how large its model is."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where a decoder could run."""

    name: str
    memory_bytes: int
    bfloat16: bool

    @property
    def element_bytes(self) -> int:
        """Of weights and KV: bfloat16 where the hardware computes it, else float32."""
        return 2 if self.bfloat16 else 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """What decides how much of a model fits.

    Attributes:
        weight_bytes: by the bytes of one number.
    """

    name: str
    weight_bytes: Mapping[int, int]
    config: Mapping[str, Any]


def devices(gpus: Sequence[Gpu]) -> tuple[Device, ...]:
    """The GPUs, each kind once, and the CPU."""
    kinds = dict.fromkeys(Device(gpu.name, gpu.memory_bytes, gpu.has_bfloat16) for gpu in gpus)
    memory = memory_bytes()
    cpu = () if memory is None else (Device(CPU, memory, cpu_has_bfloat16()),)
    return (*kinds, *cpu)


def capacity(model: Path | None, places: Sequence[Device]) -> Iterator[Finding]:
    """What is assumed, then a line for each model and device: known ones, or the folder's alone."""
    try:
        sizes = _known() if model is None else (_of_folder(model),)
        fits = [_fit(one, place) for place in places for one in sizes]
    except Unreadable as error:
        yield Finding("capacity", Verdict.BROKEN, str(error))
    except ModuleNotFoundError as error:
        detail = f"not known without a worker: no {error.name}; pip install 'longspan[worker]'"
        yield Finding("capacity", Verdict.ABSENT, detail)
    else:
        yield Finding("capacity", Verdict.OK, f"assumed: {ASSUMED}")
        yield from fits


def _known() -> tuple[Sizes, ...]:
    return tuple(
        Sizes(one.name, {size: one.parameters * size for size in (2, 4)}, one.config)
        for one in known_models()
    )


def _of_folder(folder: Path) -> Sizes:
    # The worker's own way of reading a folder; it is pure, and needs no torch.
    from longspan.worker.failures import StartFailure
    from longspan.worker.models.geometry import geometry
    from longspan.worker.models.weights import find_shards, read_headers, weight_bytes

    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        geometry(config)
        tensors = read_headers(find_shards(folder))
    except (StartFailure, OSError, ValueError, AttributeError) as error:
        raise Unreadable(f"model {folder}: {error}") from error
    weights = {size: weight_bytes(tensors, size) for size in (2, 4)}
    return Sizes(folder.resolve().name, weights, config)


def _fit(model: Sizes, place: Device) -> Finding:
    from longspan.worker.models.geometry import (
        FAR_SHARE,
        GPU_SHARE,
        HOST_SHARE,
        geometry,
        largest_contexts,
    )

    sizes, element_bytes = geometry(model.config), place.element_bytes
    weights, kv_bytes = model.weight_bytes[element_bytes], sizes.kv_bytes(element_bytes)
    # What a worker takes for its pages by default, once its weights are there.
    share = HOST_SHARE if place.name == CPU else GPU_SHARE
    left_bytes = place.memory_bytes - weights
    on_host = left_bytes if place.name == CPU else memory_bytes() or 0
    fits = largest_contexts(
        sizes,
        element_bytes=element_bytes,
        free_bytes=int(share * left_bytes),
        host_bytes=int(FAR_SHARE * on_host),
    )
    longest = "; ".join(map(_said, fits)) if left_bytes > 0 else "weights do not fit"
    return Finding(
        f"fits {place.name}",
        Verdict.OK if any(fit.tokens for fit in fits) else Verdict.ABSENT,
        f"{model.name:<30} {longest:<32} weights {weights / GIB:.1f}"
        f" of {place.memory_bytes / GIB:.1f} GiB, then {kv_bytes / KIB:.0f} KiB a token"
        f" in {share:.0%} of the rest",
        {
            "model": model.name,
            "device": place.name,
            "memory_bytes": place.memory_bytes,
            "weight_bytes": weights,
            "kv_bytes_per_token": kv_bytes,
            "kv_share": share,
            "kv_host_bytes": int(FAR_SHARE * on_host),
            "element_bytes": element_bytes,
            "tokens": {fit.policy: fit.tokens for fit in fits},
        },
    )


def _said(fit: ContextFit) -> str:
    return f"{fit.policy} {fit.tokens:,} tokens" + (", its limit" if fit.whole else "")
