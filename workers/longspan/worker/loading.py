"""From verified files to an encoder that has proved itself."""

from __future__ import annotations

import numpy as np
import torch

from longspan.worker.admission import TextRules
from longspan.worker.attention import attend_packed
from longspan.worker.encoder import Encoder
from longspan.worker.failures import StartFailure
from longspan.worker.model_files import ModelFiles

ATTENTION = "longspan_varlen"
LEAST_COSINE = {torch.float32: 0.99999, torch.bfloat16: 0.999}


def load_encoder(files: ModelFiles, *, device: str, dtype: str) -> Encoder:
    """Load, warm up and self-check the encoder.

    ``device`` is ``cpu`` or ``cuda:N``; ``dtype`` is ``auto``, ``float32`` or ``bfloat16``.

    Raises:
        StartFailure: the device is unusable, or the files hold no working encoder.
    """
    target = open_device(device)
    model = _load_model(files, choose_dtype(dtype, target)).to(target).eval()
    rules = TextRules(files.max_tokens, files.vocabulary, files.dimension)
    encoder = Encoder(model, specials=_special_tokens(files), rules=rules)
    self_check(encoder)
    return encoder


def set_threads(threads: int | None) -> None:
    """Compute with this many CPU threads; None leaves torch's choice."""
    if threads is not None:
        torch.set_num_threads(threads)


def open_device(name: str) -> torch.device:
    """The device of this name, tried out.

    Raises:
        StartFailure: there is no such device, or it does not compute.
    """
    try:
        device = torch.device(name)
        torch.ones(1, device=device).add(1).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise StartFailure(f"device {name} cannot be used: {reason}") from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Resolve ``auto``: bfloat16 only where the hardware computes it, else float32."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    return torch.bfloat16 if _has_bfloat16(device) else torch.float32


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _load_model(files: ModelFiles, dtype: torch.dtype) -> torch.nn.Module:
    """transformers' own model class with its attention replaced, and no mask registered for it."""
    from safetensors import SafetensorError
    from transformers import AttentionInterface, AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    AttentionInterface.register(ATTENTION, attend_packed)
    try:
        model, report = AutoModel.from_pretrained(
            files.folder,
            add_pooling_layer=False,
            attn_implementation=ATTENTION,
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise StartFailure(f"{files.folder} holds no loadable model: {reason}") from error
    if report["missing_keys"]:
        missing = min(report["missing_keys"])
        raise StartFailure(f"{files.folder} lacks weights, {missing} among them")
    assert isinstance(model, torch.nn.Module)
    return model


def _special_tokens(files: ModelFiles) -> tuple[int, int]:
    """The tokens around every text, which the tokenizer puts around an empty one."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(files.folder / "tokenizer.json"))
    except Exception as error:  # the library raises nothing narrower
        raise StartFailure(f"{files.folder}/tokenizer.json cannot be read: {error}") from error
    tokenizer.no_padding()
    ids = tokenizer.encode("").ids
    if len(ids) != 2:
        raise StartFailure(f"{files.folder}: expected 2 special tokens around a text, not {ids}")
    return ids[0], ids[1]


def self_check(encoder: Encoder) -> None:
    """Warm up with the longest text, and prove that packing changes no vector.

    Raises:
        StartFailure: the encoder computes nonsense here.
    """
    rules = encoder.rules
    lengths = (rules.max_tokens - 2, 7)
    texts = [np.arange(length, dtype=np.uint32) * 31 % rules.vocabulary for length in lengths]
    packed = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    cosines = (packed * alone).sum(axis=1)
    if not (np.isfinite(packed).all() and (cosines >= LEAST_COSINE[encoder.dtype]).all()):
        raise StartFailure(f"self-check failed: packed against alone, cosines {cosines.tolist()}")
