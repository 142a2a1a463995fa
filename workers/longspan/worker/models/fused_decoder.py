"""Decoders of the Llama family in few operations, for a CPU.

transformers writes a layer as some fifty small operations. A decode step waits for each of them:
with 100 million parameters in bfloat16 on 2 cores they take as long as the products. The same
layer in a dozen operations computes the same numbers, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.functional import layer_norm, rms_norm

from longspan.worker.models.packed_linear import (
    PackedLinear,
    PackedWeight,
    SiblingLinear,
)

WINDOWS: dict[str, Callable[[Any], int | None]] = {
    "LlamaForCausalLM": lambda attention: None,
    "MistralForCausalLM": lambda attention: attention.config.sliding_window,
    "Qwen2ForCausalLM": lambda attention: attention.sliding_window,
    "Qwen3ForCausalLM": lambda attention: attention.sliding_window,
}
"""The decoders that are known, and where their attention keeps its own window."""

FEW_ROWS = 4
"""Up to here the number of operations counts, not their size."""

Function = Callable[[torch.Tensor], torch.Tensor]


class Logits(NamedTuple):
    """What a decoder gives: [1, kept, vocabulary]."""

    logits: torch.Tensor


class Turn(NamedTuple):
    """Rotary position embedding of one step (Su et al., 2021).

    Attributes:
        cos, sin: [tokens, 1, d]; of the sines the first half has its sign changed.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def __call__(self, heads: torch.Tensor) -> torch.Tensor:
        """[tokens, heads, d], turned by each token's position."""
        return torch.addcmul(heads * self.cos, heads.roll(heads.shape[-1] // 2, -1), self.sin)


class FusedLayer:
    """A decoder layer whose linear layers are packed.

    Args:
        layer: transformers' own.
        window: its attention's.
    """

    def __init__(self, layer: Any, window: int | None) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._attention = attention
        self._window = window
        self._index: int = attention.layer_idx
        self._d: int = attention.head_dim
        self._before_attention = _norm(layer.input_layernorm)
        self._before_mlp = _norm(layer.post_attention_layernorm)
        self._qkv: PackedWeight = attention.q_proj.packed
        self._o: PackedWeight = attention.o_proj.packed
        self._gate_up: PackedWeight = mlp.gate_proj.packed
        self._down: PackedWeight = mlp.down_proj.packed
        self._act: Function = mlp.act_fn
        self._heads = self._qkv.sizes[0] // self._d
        self._turning = self._heads + self._qkv.sizes[1] // self._d
        self._norm_heads = _head_norm(attention, self._heads, self._turning)

    def run(self, hidden: torch.Tensor, turn: Turn, cache: Any, step: Any) -> None:
        """Change ``hidden``, [rows, hidden], in place; rows behind ``turn``'s only fill up."""
        tokens = len(turn.cos)
        qkv = self._qkv.product(self._before_attention(hidden))
        attended = self._attend(qkv[:tokens], turn, cache, step)
        hidden[:tokens].add_(self._o.product(attended))
        gate, up = self._gate_up.product(self._before_mlp(hidden)).chunk(2, -1)
        hidden.add_(self._down.product(self._act(gate).mul_(up)))

    def _attend(self, qkv: torch.Tensor, turn: Turn, cache: Any, step: Any) -> torch.Tensor:
        """[tokens, all heads * d] -> [tokens, heads * d]."""
        heads = qkv.view(len(qkv), -1, self._d)
        turning = heads[:, : self._turning]
        if self._norm_heads is not None:
            turning = self._norm_heads(turning)
        turned, values = turn(turning), heads[:, self._turning :]
        query, keys = turned[:, : self._heads], turned[:, self._heads :]
        cache.update(keys.transpose(0, 1)[None], values.transpose(0, 1)[None], self._index)
        out: torch.Tensor
        out, _ = step.attend(
            self._attention, query, scale=self._attention.scaling, window=self._window
        )
        return out.reshape(len(qkv), -1)


class FusedDecoder(torch.nn.Module):
    """A decoder over paged attention, computed as ``FusedLayer`` says.

    Args:
        model: transformers' own, its linear layers packed; one that ``can_fuse``.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        window = WINDOWS[type(model).__name__]
        inner = model.model
        self._embed: Function = inner.embed_tokens
        self._rotary: Callable[..., tuple[torch.Tensor, torch.Tensor]] = inner.rotary_emb
        self._layers = [FusedLayer(layer, window(layer.self_attn)) for layer in inner.layers]
        self._norm = _norm(inner.norm)
        self._head: PackedWeight = model.lm_head.packed

    def forward(
        self,
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        past_key_values: Any,
        logits_to_keep: torch.Tensor,
        longspan: Any,
        **_: Any,
    ) -> Logits:
        """The logits of the tokens at ``logits_to_keep``, of a row [1, tokens]; see the seam."""
        [ids] = input_ids
        rows = self._head.padded_rows(len(ids))
        hidden = self._embed(torch.nn.functional.pad(ids, (0, rows - len(ids))))
        cos, sin = (part[0, :, None] for part in self._rotary(hidden, position_ids))
        half = sin.shape[-1] // 2
        turn = Turn(cos, torch.cat((-sin[..., :half], sin[..., half:]), -1))
        for layer in self._layers:
            layer.run(hidden, turn, past_key_values, longspan)
        return Logits(self._head.product(self._norm(hidden[logits_to_keep]))[None])


def can_fuse(model: Any) -> bool:
    """True for a decoder that is known and whose linear layers are packed."""
    if type(model).__name__ not in WINDOWS or type(model.lm_head) is not PackedLinear:
        return False
    return all(
        type(layer.self_attn.q_proj) is type(layer.mlp.gate_proj) is SiblingLinear
        and type(layer.self_attn.o_proj) is type(layer.mlp.down_proj) is PackedLinear
        for layer in model.model.layers
    )


def _norm(module: Any) -> Function:
    """RMSNorm (Zhang and Sennrich, 2019), of [rows, hidden]."""
    weight, epsilon = module.weight, module.variance_epsilon
    twice, size = torch.cat((weight, weight)), len(weight)

    def norm(hidden: torch.Tensor) -> torch.Tensor:
        if len(hidden) > FEW_ROWS:
            return rms_norm(hidden, weight.shape, weight, epsilon)
        # The mean of a vector and its negative is zero, their variance the mean square. torch
        # has one operation for a layer norm, and eight for this norm.
        mirrored = torch.cat((hidden, -hidden), -1)
        return layer_norm(mirrored, twice.shape, twice, None, epsilon)[:, :size]

    return norm


def _head_norm(attention: Any, heads: int, turning: int) -> Function | None:
    """Norms of queries and keys, head by head (Qwen3), [tokens, turning, d]; None without."""
    if not hasattr(attention, "q_norm"):
        return None
    q_norm, k_norm = attention.q_norm, attention.k_norm
    assert q_norm.variance_epsilon == k_norm.variance_epsilon
    d, epsilon = q_norm.weight.shape, q_norm.variance_epsilon
    of_heads = (q_norm.weight.expand(heads, -1), k_norm.weight.expand(turning - heads, -1))
    weights = torch.cat(of_heads)
    return lambda states: rms_norm(states, d, None, epsilon).mul_(weights)
