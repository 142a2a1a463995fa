"""Which attention backend a machine gets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

from longspan.worker.attention.base import Backend
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
    # On Hopper flash-attn 4 does not split long keys over the GPU when it decodes.
    HOPPER: (Kind.FLASH3, Kind.FLASH2, Kind.FLASH4, Kind.VARLEN),
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
    return head_dim <= widest and head_dim % 8 == 0


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
    return frozenset(found | {Kind.FLASH4} if _has_flash4() else found)


def _has_flash4() -> bool:
    """True where ``flash_attn.cute`` is installed; to ask for its spec would import flash_attn."""
    package = find_spec("flash_attn")
    if package is None:
        return False
    return any((Path(root) / "cute").is_dir() for root in package.submodule_search_locations or ())


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
            varlen = import_module("torch.nn.attention.varlen")
            return VarlenBackend(varlen.varlen_attn, varlen.AuxRequest(lse=True))
        case Kind.FLASH2:
            flash = import_module("flash_attn")
            kernel = Flash2(flash.flash_attn_varlen_func, flash.flash_attn_with_kvcache)
            return FoldedBackend(kernel)
        case Kind.FLASH3:
            flash = import_module("flash_attn_interface")
            return FoldedBackend(Flash3(flash.flash_attn_with_kvcache))
        case Kind.FLASH4:
            flash = import_module("flash_attn.cute")
            splits = 0 if capability[0] == BLACKWELL else 1
            return FoldedBackend(Flash4(flash.flash_attn_varlen_func, splits))


def select_backend(device: torch.device, dtype: torch.dtype, head_dim: int) -> Backend:
    """The backend for a model on this device.

    ``head_dim`` is the widest key or value of a head, as cached.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    machine = probe(device)
    kind = choose(machine, half=half, head_dim=head_dim)
    return make_backend(kind, capability=machine.capability)
