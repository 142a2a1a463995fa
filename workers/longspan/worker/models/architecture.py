"""Which class of transformers serves a folder's configuration, and whether it can be served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longspan.worker.failures import StartFailure
from longspan.worker.model_files import read_json

GENERATES = ("CausalLM", "LMHeadModel", "ConditionalGeneration")
MXFP4 = "mxfp4"
LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})
FEATURES = {
    "attn_logit_softcapping": "caps attention logits",
    "num_kv_shared_layers": "shares KV between layers",
    "use_bidirectional_attention": "looks ahead",
    "global_head_dim": "has layers of different head sizes",
}
"""Keys of a configuration whose attention is not the one that the backends compute."""

ROW_DEPENDENT_ROPE = {"dynamic", "longrope"}
"""transformers takes the frequencies of these from the largest position of a whole row, so that a
sequence's keys would depend on what shares its steps."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder that transformers knows.

    Attributes:
        config: the configuration of the text part, completed with transformers' defaults.
        model_class: transformers' class of that text part alone.
        wrapped: the weights are those of a model that also sees or hears.
        mxfp4: the experts are stored in 4 bits, as GPT-OSS is published.
    """

    config: Any
    model_class: Any
    wrapped: bool
    mxfp4: bool


def find_architecture(folder: Path) -> Architecture:
    """The decoder that config.json describes.

    Raises:
        StartFailure: it is unknown, no decoder, quantised, or computes attention in a way that
            cannot be replaced.
    """
    stored = read_json(folder / "config.json")
    _check_stored(folder, stored)
    config = _complete(folder)
    text = config.get_text_config(decoder=True)
    model_class = _decoder_class(folder, text)
    _check_attention(folder, text, model_class)
    text.tie_word_embeddings = config.tie_word_embeddings  # of a wrapper, the outer one counts
    return Architecture(
        text, model_class, wrapped=text is not config, mxfp4=_quantisation(stored) == MXFP4
    )


def _check_stored(folder: Path, stored: dict[str, Any]) -> None:
    """What the file itself says, before transformers completes it."""
    from transformers import CONFIG_MAPPING

    kind = stored.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        if stored.get("auto_map"):
            raise StartFailure(f"{folder}: model type {kind!r} needs code that must be trusted")
        raise StartFailure(f"{folder}: transformers knows no model type {kind!r}")
    names = stored.get("architectures") or []
    if names and not any(str(name).endswith(GENERATES) for name in names):
        raise StartFailure(f"{folder}: {names[0]} is no decoder: it generates no text")
    if _quantisation(stored) not in (None, MXFP4):
        method = _quantisation(stored)
        raise StartFailure(f"{folder}: weights quantised by {method} are not supported")


def _quantisation(stored: dict[str, Any]) -> str | None:
    settings = stored.get("quantization_config")
    return str(settings.get("quant_method")) if isinstance(settings, dict) else None


def _complete(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # every configuration class checks in its own way
        reason = " ".join(str(error).split())
        raise StartFailure(f"{folder}/config.json is not usable: {reason}") from error


def _decoder_class(folder: Path, text: Any) -> Any:
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as DECODERS,
    )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS,
    )

    kind = text.model_type
    if kind in ENCODERS or text.is_encoder_decoder:
        raise StartFailure(f"{folder}: {kind} is an encoder; a decoder is needed")
    if kind not in DECODERS:
        raise StartFailure(f"{folder}: transformers has no decoder of text for {kind}")
    return getattr(transformers, DECODERS[kind])


def _check_attention(folder: Path, text: Any, model_class: Any) -> None:
    kind = text.model_type
    if not model_class._supports_attention_backend:
        raise StartFailure(
            f"{folder}: the attention of {kind} cannot be replaced "
            "(it does not go through transformers' AttentionInterface)"
        )
    if model_class._is_stateful:
        raise StartFailure(f"{folder}: {kind} keeps a recurrent state, which has no pages")
    for other in sorted(set(getattr(text, "layer_types", None) or ()) - LAYER_TYPES):
        raise StartFailure(f"{folder}: {kind} has layers of {other}, which is not supported")
    for rope in sorted(_rope_types(text) & ROW_DEPENDENT_ROPE):
        raise StartFailure(
            f"{folder}: {kind} scales its rotary frequencies by the longest text of a step "
            f"({rope}), which is not supported"
        )
    for key, what in FEATURES.items():
        if getattr(text, key, None):
            raise StartFailure(f"{folder}: {kind} {what} ({key}), which is not supported")


def _rope_types(text: Any) -> set[str]:
    """The kinds of rotary scaling of all layers."""
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    return {str(kind.get("rope_type", kind.get("type"))) for kind in kinds}
