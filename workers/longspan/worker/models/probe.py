"""What one token's keys and values look like in each layer, found by running the model once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import Cache

from longspan.worker.attention.centroids import make_centroids
from longspan.worker.attention.four_bit_keys import FourBitKeys, make_four_bit_keys
from longspan.worker.attention.layout import four_bit_bytes
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.selectors.quest import BLOCK_KEYS
from longspan.worker.failures import StartFailure


class LayerShape(NamedTuple):
    """Sizes of one layer's cache.

    Attributes:
        heads: query heads.
        latent: the keys hold everything (MLA); then ``dv`` counts their first numbers.
        window: of the layer's own, that it was trained with.
        scale: of its scores; None where nobody asked for it.
    """

    heads: int
    kv_heads: int
    d: int
    dv: int
    latent: bool
    window: int | None = None
    scale: float | None = None

    @property
    def numbers(self) -> int:
        """Numbers cached for one token."""
        return self.kv_heads * (self.d if self.latent else self.d + self.dv)

    @property
    def four_bit_bytes(self) -> int:
        """Bytes of a page's keys in 4 bits."""
        return four_bit_bytes(self.kv_heads, self.d, PAGE_TOKENS)

    @property
    def kv(self) -> tuple[int, int, int, bool]:
        """What decides the size of a page."""
        return self.kv_heads, self.d, self.dv, self.latent

    def pages(
        self, count: int, *, dtype: torch.dtype, device: torch.device, bounds: bool = True
    ) -> LayerPages:
        """Pages that hold nothing yet."""
        shape = (count, self.kv_heads, PAGE_TOKENS)
        keys = _empty(*shape, self.d, dtype=dtype, device=device)
        values = keys[..., : self.dv]
        if not self.latent:
            values = _empty(*shape, self.dv, dtype=dtype, device=device)
        if not bounds:
            return LayerPages(keys, values)
        known = self.bounds(count, dtype, device)
        return LayerPages(keys, values, known, centroids=make_centroids(keys, values))

    def bounds(self, count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """What is kept of so many pages to select them by."""
        blocks = PAGE_TOKENS // BLOCK_KEYS
        return _empty(self.kv_heads, count, blocks, 2 * self.d, dtype=dtype, device=device)

    def four_bit(self, count: int, device: torch.device) -> FourBitKeys:
        """Room for the keys of so many pages in 4 bits."""
        return make_four_bit_keys(self.kv_heads, count, PAGE_TOKENS, self.d, device)


def _empty(*shape: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Memory that was never touched costs a CPU nothing; its pages are zeroed before use."""
    make = torch.empty if device.type == "cpu" else torch.zeros
    return make(*shape, dtype=dtype, device=device)


class Probe(Cache):
    """Stands in for cache and step of one forward pass, and writes down what it is asked for."""

    is_compileable = False

    def __init__(self) -> None:
        self.layers = []
        self._shapes: dict[int, tuple[int, int, int]] = {}
        self._latent: set[int] = set()
        self._heads: dict[int, int] = {}
        self._windows: dict[int, int | None] = {}
        self._scales: dict[int, float] = {}

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Note the shapes."""
        kv_heads, d = key_states.shape[1], key_states.shape[3]
        self._shapes[layer_idx] = (kv_heads, d, value_states.shape[3])
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Nothing is cached."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """The sizes of the mask that is not built."""
        return query_length, 0

    def attend(
        self, module: Any, query: torch.Tensor, *, scale: float, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Zeros of the right shape: out [tokens, heads, dv] and lse [tokens, heads]."""
        self._heads[module.layer_idx] = query.shape[1]
        self._windows[module.layer_idx] = window
        self._scales[module.layer_idx] = scale
        dv = self._shapes[module.layer_idx][-1]
        if hasattr(module, "kv_b_proj"):
            self._latent.add(module.layer_idx)
            dv = module.v_head_dim
        return query.new_zeros(*query.shape[:2], dv), query.new_zeros(query.shape[:2])

    def shapes(self) -> list[LayerShape]:
        """The shapes, one a layer.

        Raises:
            StartFailure: the model caches something that pages cannot hold.
        """
        layers = sorted(self._shapes)
        if layers != list(range(len(layers))) or not layers:
            raise StartFailure(f"the model caches layers {layers} only: not supported")
        if sorted(self._heads) != layers:
            raise StartFailure("the model's attention cannot be replaced: it did not ask for ours")
        return [self._shape(layer) for layer in layers]

    def _shape(self, layer: int) -> LayerShape:
        kv_heads, d, dv = self._shapes[layer]
        heads, scale = self._heads[layer], self._scales[layer]
        if layer in self._latent:
            return LayerShape(heads, kv_heads, d + dv, d, latent=True, scale=scale)
        window = self._windows[layer]
        if d != dv:
            raise StartFailure(f"layer {layer} has keys of {d} and values of {dv}: not supported")
        return LayerShape(heads, kv_heads, d, dv, latent=False, window=window, scale=scale)


@torch.inference_mode()
def probe(model: torch.nn.Module, device: torch.device) -> list[LayerShape]:
    """The cache shapes of a model loaded with our attention.

    Raises:
        StartFailure: its attention does not go through the seam, or needs what pages lack.
    """
    cache = Probe()
    ids = torch.zeros(1, 1, dtype=torch.long, device=device)
    try:
        model(input_ids=ids, position_ids=ids, past_key_values=cache, longspan=cache)
    except (TypeError, AssertionError, AttributeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise StartFailure(f"the model's attention cannot be replaced: {reason}") from error
    return cache.shapes()
