"""From verified files to a decoder on its device, with its attention replaced."""

from __future__ import annotations

from typing import Any

import torch

from longspan.worker.devices import choose_dtype, free_bytes, open_device
from longspan.worker.failures import NoMemory, StartFailure
from longspan.worker.models import seam
from longspan.worker.models.architecture import Architecture, find_architecture
from longspan.worker.models.decoder_files import DecoderFiles
from longspan.worker.models.weights import find_shards, read_headers, weight_bytes

GIB = 1 << 30
TEXT_PART = {
    r"^(?:model\.)?language_model\.lm_head\.": "lm_head.",
    r"^(?:model\.)?language_model\.(?:model\.)?": "model.",
}
"""From the names of a model that also sees or hears to those of its text part alone."""


def load_decoder(files: DecoderFiles, *, device: str, dtype: str) -> torch.nn.Module:
    """transformers' own model in evaluation mode, its attention ours, no mask built.

    ``device`` is ``cpu`` or ``cuda:N``; ``dtype`` is ``auto``, ``float32``, ``bfloat16`` or
    ``float16``. The weights pass through host memory on their way to a GPU.

    Raises:
        StartFailure: the device is unusable, the weights do not fit into its memory, or the
            files hold no such decoder.
    """
    target = open_device(device)
    chosen = choose_dtype(dtype, target)
    architecture = find_architecture(files.folder)
    needed = weight_bytes(read_headers(find_shards(files.folder)), chosen.itemsize)
    for place in dict.fromkeys((torch.device("cpu"), target)):
        check_memory(files, place, needed=needed, free=free_bytes(place))
    try:
        return _load(files, architecture, chosen).to(target).eval().requires_grad_(False)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _out_of_memory(files, target, needed, free_bytes(target)) from error


def check_memory(
    files: DecoderFiles, device: torch.device, *, needed: int, free: int | None
) -> None:
    """Refuse weights that cannot fit; where the system names no free memory, let them try.

    Raises:
        StartFailure: says how many bytes are needed and how many are there.
    """
    if free is not None and needed > free:
        raise _out_of_memory(files, device, needed, free)


def _out_of_memory(
    files: DecoderFiles, device: torch.device, needed: int, free: int | None
) -> NoMemory:
    there = "an unknown amount" if free is None else f"{free / GIB:.2f} GiB"
    return NoMemory(
        f"out of memory: the weights of {files.name} need {needed / GIB:.2f} GiB, "
        f"{device} has {there} free"
    )


def _load(files: DecoderFiles, architecture: Architecture, dtype: torch.dtype) -> torch.nn.Module:
    from safetensors import SafetensorError
    from transformers.utils import logging
    from transformers.utils.quantization_config import Mxfp4Config

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    seam.register()
    try:
        model, report = architecture.model_class.from_pretrained(
            files.folder,
            config=architecture.config,
            attn_implementation=seam.ATTENTION,
            dtype=dtype,
            key_mapping=TEXT_PART if architecture.wrapped else None,
            local_files_only=True,
            output_loading_info=True,
            quantization_config=Mxfp4Config(dequantize=True) if architecture.mxfp4 else None,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if "allocate memory" in str(error):  # what torch says of host memory
            raise MemoryError from error
        reason = str(error).partition("\n")[0]
        raise StartFailure(f"{files.folder} holds no loadable decoder: {reason}") from error
    _check_complete(files, report)
    assert isinstance(model, torch.nn.Module)
    return model


def _check_complete(files: DecoderFiles, report: dict[str, Any]) -> None:
    if report["missing_keys"]:
        missing = min(report["missing_keys"])
        raise StartFailure(f"{files.folder} lacks weights, {missing} among them")
