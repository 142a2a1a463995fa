"""Which attention backend a machine gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from longspan.worker.attention.base import Backend
from longspan.worker.attention.by_phase import ByPhase
from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.flash2 import Flash2
from longspan.worker.attention.flash3 import Flash3
from longspan.worker.attention.flash4 import Flash4
from longspan.worker.attention.folded import FoldedBackend
from longspan.worker.attention.tiled import TiledBackend
from longspan.worker.attention.torch_varlen import VarlenBackend


class Kind(StrEnum):
    """The backends, by the library that computes."""

    CPU = "cpu"
    FLASH2 = "flash-attn 2"
    FLASH3 = "flash-attn 3"
    FLASH4 = "flash-attn 4"
    FLASH4_2 = "flash-attn 4 + 2"
    VARLEN = "torch varlen_attn"
    TILED = "torch, tiled"


@dataclass(frozen=True, slots=True)
class Machine:
    """What the choice depends on.

    Attributes:
        device: torch's device type.
        capability: CUDA compute capability; (0, 0) where there is none.
        installed: the libraries found.
    """

    device: str
    capability: tuple[int, int] = (0, 0)
    installed: frozenset[Kind] = frozenset()


HOPPER, BLACKWELL = 9, 10
"""Major compute capabilities that have kernels of their own."""

_ANY = (Kind.FLASH2, Kind.VARLEN)
PREFERENCE = {
    # On Hopper flash-attn 4 does not split long keys over the GPU when it decodes, and
    # flash-attn 2 is slow in prefills: together they are fast in both.
    HOPPER: (Kind.FLASH3, Kind.FLASH4_2, Kind.FLASH2, Kind.FLASH4, Kind.VARLEN),
    BLACKWELL: (Kind.FLASH4, *_ANY),
    8: _ANY,
    11: _ANY,
    12: _ANY,
}
"""Fastest first, by major compute capability; others have no flash kernel."""


def choose(machine: Machine, *, half: bool, head_dim: int) -> Kind:
    """The fastest backend that is right for this machine.

    Args:
        half: True for fp16 and bf16.
        head_dim: widest key or value of a head, as cached (576 for MLA).
    """
    if machine.device == "cpu":
        return Kind.CPU
    if machine.device != "cuda" or not half:
        return Kind.TILED
    major = machine.capability[0]
    for kind in PREFERENCE.get(major, ()):
        if kind in machine.installed and _fits(kind, major, head_dim):
            return kind
    return Kind.TILED


def _fits(kind: Kind, major: int, head_dim: int) -> bool:
    """Whether the kernel has code for heads of this size."""
    # On Blackwell its kernel for 256 takes no lengths of keys, and there is none between.
    widest = 128 if kind is Kind.FLASH4 and major == BLACKWELL else 256
    # flash-attn 4 loads no pages of heads between multiples of 16.
    multiple = 16 if kind in (Kind.FLASH4, Kind.FLASH4_2) else 8
    return head_dim <= widest and head_dim % multiple == 0


def probe(device: torch.device) -> Machine:
    """What is there; no kernel library is imported."""
    if device.type != "cuda":
        return Machine(device.type)
    return Machine("cuda", torch.cuda.get_device_capability(device), installed())


def installed() -> frozenset[Kind]:
    """The kernel libraries of this environment, none of them imported."""
    modules = {
        Kind.FLASH2: "flash_attn_2_cuda",
        Kind.FLASH3: "flash_attn_interface",
        Kind.VARLEN: "torch.nn.attention.varlen",
    }
    found = {kind for kind, module in modules.items() if find_spec(module) is not None}
    if _has_flash4():
        found |= {Kind.FLASH4, Kind.FLASH4_2} if Kind.FLASH2 in found else {Kind.FLASH4}
    return frozenset(found)


def _has_flash4() -> bool:
    """True where ``flash_attn.cute`` is installed; to ask for its spec would import flash_attn.

    flash-attn 2's source distribution brings a first draft of it, in the same folder: it does not
    know splits, and overwrites the right one where it is installed later.
    """
    package = find_spec("flash_attn")
    roots = package.submodule_search_locations if package else None
    interfaces = [Path(root) / "cute" / "interface.py" for root in roots or ()]
    return any(path.is_file() and "num_splits" in path.read_text("utf-8") for path in interfaces)


def make_backend(kind: Kind, *, capability: tuple[int, int] = (0, 0)) -> Backend:
    """The backend, with its library imported.

    ``capability`` is the GPU's, see ``Machine``.

    Raises:
        ImportError: the library is not installed, or does not fit torch or the driver.
    """
    match kind:
        case Kind.CPU:
            return CpuBackend()
        case Kind.TILED:
            return TiledBackend()
        case Kind.VARLEN:
            return VarlenBackend(*_varlen())
        case Kind.FLASH2:
            return FoldedBackend(_flash2())
        case Kind.FLASH3:
            flash = import_module("flash_attn_interface")
            return FoldedBackend(Flash3(flash.flash_attn_with_kvcache))
        case Kind.FLASH4:
            return FoldedBackend(_flash4(capability[0]))
        case Kind.FLASH4_2:
            return FoldedBackend(ByPhase(prefill=_flash4(capability[0]), decode=_flash2()))


def _varlen() -> tuple[Callable[..., Any], Any]:
    """The kernel and its request for log-sum-exps; torch 2.11 takes grouped heads unasked."""
    varlen = import_module("torch.nn.attention.varlen")
    kernel = varlen.varlen_attn
    if "enable_gqa" in signature(kernel).parameters:
        kernel = partial(kernel, enable_gqa=True)
    return kernel, varlen.AuxRequest(lse=True)


def _flash2() -> Flash2:
    flash = import_module("flash_attn")
    return Flash2(flash.flash_attn_varlen_func, flash.flash_attn_with_kvcache)


def _flash4(major: int) -> Flash4:
    flash = import_module("flash_attn.cute")
    splits = 0 if major == BLACKWELL else 1
    return Flash4(flash.flash_attn_varlen_func, splits, hopper=major == HOPPER)


def select_backend(device: torch.device, dtype: torch.dtype, head_dim: int) -> Backend:
    """The backend for a model on this device.

    ``head_dim`` is the widest key or value of a head, as cached.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    machine = probe(device)
    kind = choose(machine, half=half, head_dim=head_dim)
    return make_backend(kind, capability=machine.capability)
