"""How much memory a decoder's KV cache takes, and the longest context that fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longspan.worker.attention.host_split import HostNeeds, split
from longspan.worker.attention.layout import Layout, four_bit_bytes, layout
from longspan.worker.attention.policy import CENTROID_TOKENS, PRESETS, ModelPolicy, Policy
from longspan.worker.attention.retention import Retention, groups, longest, retention

PAGE_TOKENS = 256
SUMMARIES = 16
"""Pages that something stands for, for each page that lies in memory: at 64 tokens a centroid they
take a quarter of the pages' own memory."""

HOST_SHARE = 0.5
"""KV pages' part of the host memory that weights leave free: others live there too. Pages take
memory when they are first used."""
BOUND_KEYS = 16
"""Keys of a page that are bounded together where it is chosen by bounds, which take as much as one
key and its value."""
FAR_SHARE = 0.25
"""Of the host memory that is free, what pages take whose layers keep them there."""
GPU_SHARE = 0.8
"""The same of a GPU's memory; of the rest activations take their part, and what pages are selected
by, a sixteenth of the pages' own memory, and their means, a 64th."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes that decide what one token costs.

    Attributes:
        layers: each keeps KV of its own.
        kv_heads: of a layer; one where it keeps latents.
        kv_floats: floats that one layer keeps for one token.
        key_dim: floats of one kv head's key.
        latent: it keeps latents (MLA), of which all heads depend.
        context_tokens: longest sequence that the model's positions allow.
    """

    layers: int
    kv_heads: int
    kv_floats: int
    context_tokens: int
    key_dim: int
    latent: bool = False

    def kv_bytes(self, element_bytes: int) -> int:
        """KV bytes of one token in all layers."""
        return self.layers * self.kv_floats * element_bytes


@dataclass(frozen=True, slots=True)
class ContextFit:
    """The longest context under one policy.

    Attributes:
        policy: which tokens keep their KV.
        tokens: 0 where not even one page fits.
        whole: the model's positions end before the memory does.
    """

    policy: str
    tokens: int
    whole: bool


def geometry(config: Mapping[str, Any]) -> Geometry:
    """The geometry of a config.json; of its text part where the model also sees or hears.

    Raises:
        ValueError: a size is absent or no positive number.
    """
    text = config.get("text_config") or config
    return Geometry(
        layers=_size(text, "num_hidden_layers"),
        kv_heads=1 if text.get("kv_lora_rank") else _kv_heads(text),
        kv_floats=_latent_floats(text) if text.get("kv_lora_rank") else _head_floats(text),
        context_tokens=context_tokens(text),
        key_dim=_latent_floats(text) if text.get("kv_lora_rank") else _key_dim(text),
        latent=bool(text.get("kv_lora_rank")),
    )


def context_tokens(config: Mapping[str, Any]) -> int:
    """Longest sequence, with the rotary scaling that transformers would apply.

    YaRN may be turned on in a configuration whose ``max_position_embeddings`` is still that of
    pretraining (as Qwen2.5's authors document), and dynamic NTK stretches it; for every other
    kind ``max_position_embeddings`` already is the stretched length.

    Raises:
        ValueError: there is no usable ``max_position_embeddings``.
    """
    positions = _size(config, "max_position_embeddings")
    rope = _rope(config)
    factor = float(rope.get("factor") or 1)
    match rope.get("rope_type", rope.get("type")):
        case "yarn":
            pretrained = rope.get("original_max_position_embeddings") or positions
            return max(positions, int(pretrained * factor))
        case _:
            return positions


def largest_contexts(
    model: Geometry, *, element_bytes: int, free_bytes: int, host_bytes: int = 0
) -> tuple[ContextFit, ...]:
    """The longest context of one sequence in ``free_bytes``, for each policy, in whole pages.

    ``host_bytes`` is for the pages that a policy keeps on the host, beside those.
    """
    return tuple(
        ContextFit(name, min(tokens, model.context_tokens), tokens >= model.context_tokens)
        for name, policy in PRESETS.items()
        for tokens in [
            _longest_context(model, policy, element_bytes, max(free_bytes, 0), max(host_bytes, 0))
        ]
    )


def _longest_context(
    model: Geometry, preset: Policy, element_bytes: int, free_bytes: int, host_bytes: int
) -> int:
    """Without windows that layers may have of their own: then it is longer."""
    policy = preset.of(model.layers)
    if model.latent and (policy.eight_bit or any(layer.on_host for layer in policy.layers)):
        return 0  # refused at the start
    alike = groups([policy], [None] * model.layers, PAGE_TOKENS)
    pages = layout(alike, policy.eight_bit, four_bit=policy.four_bit, itemsize=element_bytes)
    token_bytes = [model.kv_floats * element_bytes] * model.layers
    copies = four_bit_bytes(model.kv_heads, model.key_dim, PAGE_TOKENS)
    frame_bytes = pages.frame_bytes(
        token_bytes, model.kv_heads, PAGE_TOKENS, [copies] * model.layers
    )
    kept = [retention(policy.layer(group[0]), None, PAGE_TOKENS) for group in alike]
    if any(layer.on_host for layer in policy.layers):
        needs = _host_needs(model, policy, pages, kept, frame_bytes)
        room = split(needs, free_bytes, host_bytes)
        return min(longest(pages.sizes, room.frames, kept), room.pages) * PAGE_TOKENS
    if not policy.forgets:
        return longest(pages.sizes, free_bytes // frame_bytes, kept) * PAGE_TOKENS
    frames = free_bytes // (frame_bytes + SUMMARIES * frame_bytes // CENTROID_TOKENS)
    return min(longest(pages.sizes, frames, kept), SUMMARIES * frames) * PAGE_TOKENS


def _host_needs(
    model: Geometry,
    policy: ModelPolicy,
    pages: Layout,
    kept: Sequence[Retention],
    frame_bytes: int,
) -> HostNeeds:
    """What a page takes where all layers that give up its frames keep it on the host."""
    hosted = [layer for layer in policy.layers if layer.on_host]
    host_bytes = len(hosted) * frame_bytes // pages.slots
    in_frames = sum(s for s, one in zip(pages.sizes, kept, strict=True) if not one.drops)
    return HostNeeds(
        frame_bytes=frame_bytes,
        frames=sum(pages.sizes),
        kept=in_frames,
        hosted=sum(pages.sizes) - in_frames,
        bounds_bytes=host_bytes // BOUND_KEYS,
        page_bytes=host_bytes,
        chosen=max(layer.selected_pages for layer in hosted),
    )


def _head_floats(config: Mapping[str, Any]) -> int:
    """Grouped-query attention (arXiv:2305.13245): a key and a value for every KV head."""
    key = _key_dim(config)
    return _kv_heads(config) * (key + int(config.get("v_head_dim") or key))


def _key_dim(config: Mapping[str, Any]) -> int:
    heads = _size(config, "num_attention_heads")
    return int(config.get("head_dim") or _size(config, "hidden_size") // heads)


def _kv_heads(config: Mapping[str, Any]) -> int:
    return int(config.get("num_key_value_heads") or _size(config, "num_attention_heads"))


def _latent_floats(config: Mapping[str, Any]) -> int:
    """Multi-head latent attention (arXiv:2405.04434): one latent, and one key with positions."""
    return _size(config, "kv_lora_rank") + _size(config, "qk_rope_head_dim")


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rotary parameters; those of the full layers where layers differ."""
    rope: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    nested = rope.get("full_attention")
    return nested if isinstance(nested, Mapping) else rope


def _size(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"the configuration has no usable {key}: {value!r}")
    return value
