"""A program of its own: imports torch and the attention kernels, and prints what came of it.

Run as ``python -m longspan.client._cli.probe``; prints one JSON object. In its own process,
because these libraries are heavy, and because one that does not fit the driver may crash.
"""

from __future__ import annotations

import json
from importlib import import_module, metadata
from typing import Any

# Name, module to import, distributions that bring it.
KERNELS = (
    ("flash-attn 2", "flash_attn.flash_attn_interface", ("flash-attn",)),
    ("flash-attn 3", "flash_attn_interface", ("flash-attn-3",)),
    ("flash-attn 4", "flash_attn.cute", ("flash-attn-4",)),
    ("torch varlen", "torch.nn.attention.varlen", ("torch",)),
)
CUSTOMARY_HEAD_DIM = 128


def main() -> int:
    """Print the findings."""
    print(json.dumps({**_torch(), "kernels": [_kernel(*one) for one in KERNELS]}))
    return 0


def _torch() -> dict[str, Any]:
    try:
        import torch
    except Exception as error:  # a broken build raises anything
        return {"torch": None, "error": _reason(error), "gpus": []}
    gpus = []
    if torch.cuda.is_available():
        gpus = [_gpu(torch, number) for number in range(torch.cuda.device_count())]
    return {"torch": torch.__version__, "error": "", "gpus": gpus, "attention": _chosen(torch)}


def _gpu(torch: Any, number: int) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(number)
    return {
        "name": found.name,
        "memory_bytes": found.total_memory,
        "capability": f"{found.major}.{found.minor}",
    }


def _chosen(torch: Any) -> str:
    # What a worker would take for half precision and heads of the customary size.
    try:
        from longspan.worker.attention.select import choose, probe
    except ImportError:
        return ""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return choose(probe(device), half=True, head_dim=CUSTOMARY_HEAD_DIM).value


def _kernel(name: str, module: str, distributions: tuple[str, ...]) -> dict[str, Any]:
    kernel = {"name": name, "version": "", "error": ""}
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        absent = f"{module}.".startswith(f"{error.name}.")
        return kernel if absent else {**kernel, "error": _reason(error)}
    except Exception as error:  # a build for another torch or driver raises anything
        return {**kernel, "error": _reason(error)}
    return {**kernel, "version": _version(distributions)}


def _version(distributions: tuple[str, ...]) -> str:
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def _reason(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}"


if __name__ == "__main__":
    raise SystemExit(main())
