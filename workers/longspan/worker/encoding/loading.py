"""From verified files to an encoder that has proved itself."""

from __future__ import annotations

import numpy as np
import torch

from longspan.worker.devices import choose_dtype, open_device
from longspan.worker.encoding.admission import TextRules
from longspan.worker.encoding.attention import attend_packed
from longspan.worker.encoding.encoder import Encoder
from longspan.worker.failures import StartFailure
from longspan.worker.model_files import ModelFiles

ATTENTION = "longspan_varlen"
LEAST_COSINE = {torch.float32: 0.99999, torch.bfloat16: 0.999, torch.float16: 0.999}


def load_encoder(files: ModelFiles, *, device: str, dtype: str) -> Encoder:
    """Load, warm up and self-check the encoder.

    ``device`` is ``cpu`` or ``cuda:N``; ``dtype`` is a name in ``devices``.

    Raises:
        StartFailure: the device is unusable, or the files hold no working encoder.
    """
    target = open_device(device)
    model = _load_model(files, choose_dtype(dtype, target)).to(target).eval()
    rules = TextRules(files.max_tokens, files.vocabulary, files.dimension)
    encoder = Encoder(model, specials=_special_tokens(files), rules=rules)
    self_check(encoder)
    return encoder


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
