"""The seam between transformers' decoders and paged attention.

A decoder hands its new keys and values to ``PagedCache.update`` and then calls the attention
function registered as ``ATTENTION``, which reads the pages. No mask is registered under that
name, so transformers builds none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, Cache

from longspan.worker.attention.merge import with_sinks
from longspan.worker.attention.pool import LayerPages, Slots
from longspan.worker.attention.step_attention import LayerAttention

ATTENTION = "longspan"

LATENT_WEIGHT = "kv_b_proj"
"""A linear layer whose weight is read here."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What the attention function needs to know about the running step.

    Attributes:
        slots: where its tokens are stored, for each frame of a page.
        layers: the model's pages, one a layer.
    """

    attention: LayerAttention
    slots: Sequence[Slots]
    layers: Sequence[LayerPages]

    def attend(
        self, module: Any, query: torch.Tensor, *, scale: float, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend from ``query`` [tokens, heads, d]: out [tokens, heads, dv] and its lse."""
        index = module.layer_idx
        layer = self.layers[index]
        if not layer.latent:
            return self.attention.attend(index, query, layer, scale=scale, window=window)
        weight = _latent_weight(module)
        nope = module.qk_nope_head_dim
        absorbed = torch.einsum("qhn,hnr->qhr", query[..., :nope], weight[:, :nope])
        latent_query = torch.cat((absorbed, query[..., nope:]), -1)
        out, lse = self.attention.attend(index, latent_query, layer, scale=scale, window=window)
        return torch.einsum("qhr,hvr->qhv", out, weight[:, nope:]), lse


class PagedCache(Cache):
    """A step's way into the pages of all layers; sequences are told apart by their slots.

    Attributes:
        layers_pages: one a layer.
        step: the running step.
    """

    is_compileable = False

    def __init__(self) -> None:
        self.layers = []
        self.step: Step | None = None

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store a row's new keys and values, [1, kv_heads, tokens, d], or MLA's two latents.

        What is returned is never read: attention looks into the pages. Of latents one is
        returned, since a decoder expands what it gets.
        """
        assert self.step is not None
        layer = self.step.layers[layer_idx]
        if layer.latent:
            latent = torch.cat((key_states, value_states), -1)
            layer.write(self.step.slots[layer.frame], latent[0], latent[0])
            return key_states[:, :, :1], value_states[:, :, :1]
        layer.write(self.step.slots[layer.frame], key_states[0], value_states[0])
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are always given, so no decoder derives them from this."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """The sizes of the mask that is not built."""
        return query_length, 0


def attend_paged(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    longspan: Step,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Paged attention behind the signature of transformers' ``AttentionInterface``.

    ``query`` is [1, heads, tokens, d]; the result is [1, tokens, heads, dv].
    """
    assert attention_mask is None, "a mask of tokens x tokens must never be built"
    assert softcap is None, "refused when the model is loaded"
    rows = query[0].transpose(0, 1)
    out, lse = longspan.attend(module, rows, scale=scaling, window=sliding_window)
    if s_aux is not None:
        out = with_sinks(out, lse, s_aux)
    return out[None], None


def register() -> None:
    """Make ``ATTENTION`` known to transformers."""
    AttentionInterface.register(ATTENTION, attend_paged)


def keep_uncompiled(cache: PagedCache) -> None:
    """Let torch.compile pass over the seam: pages and plans are no business of its graphs.

    Not as decorators: their wrappers cost a tenth of a decode step where nothing is compiled.
    """
    disable: Any = torch.compiler.disable
    AttentionInterface.register(ATTENTION, disable(attend_paged))
    cache.update = disable(cache.update)  # type: ignore[method-assign]


def _latent_weight(module: Any) -> torch.Tensor:
    """What expands a latent: [heads, nope + dv, rank] (DeepSeek-V2, 2024, section 2.1)."""
    weight: torch.Tensor = getattr(module, LATENT_WEIGHT).weight
    return weight.view(-1, module.qk_nope_head_dim + module.v_head_dim, module.kv_lora_rank)
