"""Decoders of the Llama family in few operations.

transformers writes a layer as some fifty small operations. A decode step waits for each of them:
on a CPU with 100 million parameters in bfloat16 on 2 cores they take as long as the products, and
on a GPU each is a kernel of its own. The same layer in a dozen operations computes the same
numbers, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import layer_norm, rms_norm

from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.models.compiled_elementwise import LayerSizes, compiled
from longspan.worker.models.elementwise import (
    Elementwise,
    Function,
    HeadNorms,
    gate_by,
    place,
    turned,
)
from longspan.worker.models.product import DecoderProducts, LayerProducts

WINDOWS: dict[str, Callable[[Any], int | None]] = {
    "LlamaForCausalLM": lambda attention: None,
    "MistralForCausalLM": lambda attention: attention.config.sliding_window,
    "Qwen2ForCausalLM": lambda attention: attention.sliding_window,
    "Qwen3ForCausalLM": lambda attention: attention.sliding_window,
}
"""The decoders that are known, and where their attention keeps its own window."""

FEW_ROWS = 4
"""Up to here a CPU waits for the number of operations, not for their size."""


class Logits(NamedTuple):
    """What a decoder gives: [1, kept, vocabulary]."""

    logits: torch.Tensor


class Turn(NamedTuple):
    """Rotary position embedding of one step; see ``turned``.

    Attributes:
        cos, sin: [tokens, 1, d]; of the sines the first half has its sign changed.
    """

    cos: torch.Tensor
    sin: torch.Tensor


class Rotary:
    """Turns for positions, from transformers' module; its frequencies must not depend on them."""

    def __init__(self, module: Any) -> None:
        frequencies = module.inv_freq.float()
        # The sine is odd and the cosine even: the first half's sign is changed for nothing.
        self._frequencies = torch.cat((-frequencies, frequencies))
        self._scaling: float = module.attention_scaling

    def turn(self, positions: torch.Tensor, dtype: torch.dtype) -> Turn:
        """Of positions [tokens]; computed in float32."""
        angles = (positions[:, None] * self._frequencies)[:, None]
        cos, sin = angles.cos(), angles.sin()
        if self._scaling != 1:
            cos, sin = cos * self._scaling, sin * self._scaling
        return Turn(cos.to(dtype), sin.to(dtype))


class Places(NamedTuple):
    """Where a step's tokens are stored.

    Attributes:
        cache: the seam's.
        step: the running step.
        flat: for each frame of a page, int64 [tokens], page * PAGE_TOKENS + offset; None where
            everything is stored through the cache.
    """

    cache: Any
    step: Any
    flat: Sequence[torch.Tensor] | None


class FusedLayer:
    """A decoder layer over products.

    Args:
        layer: transformers' own.
        window: its attention's.
        products: of its weights.
        elementwise: what lies between them.
    """

    def __init__(
        self, layer: Any, window: int | None, products: LayerProducts, elementwise: Elementwise
    ) -> None:
        attention = layer.self_attn
        self._attention = attention
        self._window = window
        self._index: int = attention.layer_idx
        self._d: int = attention.head_dim
        self._before_attention = _norm(layer.input_layernorm)
        self._before_mlp = _norm(layer.post_attention_layernorm)
        self._qkv, self._o, self._gate_up, self._down = products
        self._heads = self._qkv.sizes[0] // self._d
        self._turning = self._heads + self._qkv.sizes[1] // self._d
        self._norms = _head_norms(attention)
        self._norm_heads = _head_norm(self._norms, self._heads, self._turning)
        self._elementwise = elementwise

    def compile(self, known: dict[LayerSizes, Elementwise]) -> None:
        """Compile what is elementwise, once for all layers of these sizes."""
        weight = self._attention.o_proj.weight
        sizes = LayerSizes(
            width=sum(self._qkv.sizes),
            kv_heads=self._turning - self._heads,
            d=self._d,
            inner=self._gate_up.sizes[0],
        )
        if sizes not in known:
            known[sizes] = compiled(
                self._elementwise, sizes, self._norms, device=weight.device, dtype=weight.dtype
            )
        self._elementwise = known[sizes]

    def run(self, hidden: torch.Tensor, turn: Turn, places: Places) -> None:
        """Change ``hidden``, [rows, hidden], in place; rows behind ``turn``'s only fill up."""
        tokens = len(turn.cos)
        qkv = self._qkv.product(self._before_attention(hidden))[:tokens]
        out, _ = places.step.attend(
            self._attention,
            self._store(qkv, turn, places),
            scale=self._attention.scaling,
            window=self._window,
        )
        self._o.add_product(hidden, out.reshape(tokens, -1))
        gate_up = self._gate_up.product(self._before_mlp(hidden))
        self._down.add_product(hidden, self._elementwise.gate(gate_up))

    def _store(self, qkv: torch.Tensor, turn: Turn, places: Places) -> torch.Tensor:
        """Store keys and values of [tokens, all heads * d]; the queries, [tokens, heads, d]."""
        if places.flat is not None:
            layer = places.step.layers[self._index]
            # Others than plain pages store something else than keys and values.
            if type(layer) is LayerPages:
                return self._store_directly(qkv, turn, places, layer)
        heads = qkv.view(len(qkv), -1, self._d)
        turning = heads[:, : self._turning]
        if self._norm_heads is not None:
            turning = self._norm_heads(turning)
        turned_heads, values = turned(turning, *turn), heads[:, self._turning :]
        query, keys = turned_heads[:, : self._heads], turned_heads[:, self._heads :]
        places.cache.update(keys.transpose(0, 1)[None], values.transpose(0, 1)[None], self._index)
        return query

    def _store_directly(
        self, qkv: torch.Tensor, turn: Turn, places: Places, layer: LayerPages
    ) -> torch.Tensor:
        assert places.flat is not None
        slots = places.step.slots[layer.frame]
        layer.begin(slots)
        query = self._elementwise.place(
            qkv, *turn, layer.keys, layer.values, places.flat[layer.frame], self._norms
        )
        layer.complete(slots)
        return query


class FusedDecoder(torch.nn.Module):
    """A decoder over paged attention, computed as ``FusedLayer`` says.

    Args:
        model: transformers' own, one that is known.
        products: of its weights.
        direct: store keys and values into the pages without the cache's way, for a GPU.
    """

    def __init__(self, model: Any, products: DecoderProducts, *, direct: bool = False) -> None:
        super().__init__()
        window = WINDOWS[type(model).__name__]
        inner = model.model
        elementwise = Elementwise(place, gate_by(inner.layers[0].mlp.act_fn))
        self._embed: Function = inner.embed_tokens
        self._rotary = Rotary(inner.rotary_emb)
        self._layers = [
            FusedLayer(layer, window(layer.self_attn), layer_products, elementwise)
            for layer, layer_products in zip(inner.layers, products.layers, strict=True)
        ]
        self._norm = _norm(inner.norm)
        self._head = products.head
        self._direct = direct

    def compile_elementwise(self) -> None:
        """Compile what lies between the products, where this machine can."""
        known: dict[LayerSizes, Elementwise] = {}
        for layer in self._layers:
            layer.compile(known)

    def forward(
        self,
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        past_key_values: Any,
        logits_to_keep: torch.Tensor | int,
        longspan: Any,
        **_: Any,
    ) -> Logits:
        """The logits of the tokens at ``logits_to_keep``, of a row [1, tokens]; see the seam.

        0 keeps those of all tokens.
        """
        [ids], [positions] = input_ids, position_ids
        if rows := self._head.padded_rows(len(ids)) - len(ids):
            ids = torch.nn.functional.pad(ids, (0, rows))
        hidden = self._embed(ids)
        turn = self._rotary.turn(positions, hidden.dtype)
        flat = None
        if self._direct:
            flat = [slots.pages * PAGE_TOKENS + slots.offsets for slots in longspan.slots]
        places = Places(past_key_values, longspan, flat)
        for layer in self._layers:
            layer.run(hidden, turn, places)
        kept = (
            hidden[: len(positions)] if isinstance(logits_to_keep, int) else hidden[logits_to_keep]
        )
        return Logits(self._head.product(self._norm(kept))[None])


def is_known(model: Any) -> bool:
    """True for a decoder whose layers ``FusedLayer`` computes."""
    return type(model).__name__ in WINDOWS


def _norm(module: Any) -> Function:
    """RMSNorm (Zhang and Sennrich, 2019), of [rows, hidden]."""
    weight, epsilon = module.weight, module.variance_epsilon
    if weight.is_cuda:
        return lambda hidden: rms_norm(hidden, weight.shape, weight, epsilon)
    twice, size = torch.cat((weight, weight)), len(weight)

    def norm(hidden: torch.Tensor) -> torch.Tensor:
        if len(hidden) > FEW_ROWS:
            return rms_norm(hidden, weight.shape, weight, epsilon)
        # The mean of a vector and its negative is zero, their variance the mean square. A CPU
        # has one operation for a layer norm, and eight for this norm.
        mirrored = torch.cat((hidden, -hidden), -1)
        return layer_norm(mirrored, twice.shape, twice, None, epsilon)[:, :size]

    return norm


def _head_norms(attention: Any) -> HeadNorms | None:
    if not hasattr(attention, "q_norm"):
        return None
    q_norm, k_norm = attention.q_norm, attention.k_norm
    assert q_norm.variance_epsilon == k_norm.variance_epsilon
    return HeadNorms(q_norm.weight, k_norm.weight, q_norm.variance_epsilon)


def _head_norm(norms: HeadNorms | None, heads: int, turning: int) -> Function | None:
    """Norms of queries and keys in one, [tokens, turning, d]; None without."""
    if norms is None:
        return None
    d, epsilon = norms.query.shape, norms.epsilon
    of_heads = (norms.query.expand(heads, -1), norms.key.expand(turning - heads, -1))
    weights = torch.cat(of_heads)
    return lambda states: rms_norm(states, d, None, epsilon).mul_(weights)
