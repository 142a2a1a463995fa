"""The tensors of all KV pages, and each layer's view of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from longspan.worker.attention.centroids import make_centroids
from longspan.worker.attention.eight_bit import SCALE, EightBitPages
from longspan.worker.attention.four_bit_keys import FourBitKeys
from longspan.worker.attention.layout import Layout, Place
from longspan.worker.attention.linear.feature_maps import FeatureMap
from longspan.worker.attention.linear.page_sums import PageSums, make_page_sums
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.failures import NoMemory
from longspan.worker.models.probe import LayerShape


def make_pool(
    shapes: Sequence[LayerShape],
    layout: Layout,
    frames: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    bounds: bool,
    summaries: Mapping[int, int] | None = None,
    maps: Mapping[int, FeatureMap] | None = None,
) -> list[LayerPages]:
    """The pages of each layer. Layers that share a slot lie in one tensor, in other frames of it.

    Args:
        shapes: of the layers.
        layout: how pages lie in frames.
        frames: how many.
        dtype: of what is not stored in 8 bits.
        device: where they lie.
        bounds: some policy selects pages.
        summaries: how many pages' centroids are kept by their numbers, in these layers.
        maps: of the layers that keep linear states of their pages.

    Raises:
        NoMemory: they do not fit.
    """
    try:
        layers = _Slots(shapes, layout, frames, dtype, device, bounds).layers()
        for layer, numbers in (summaries or {}).items():
            pages = layers[layer]
            layers[layer] = replace(
                pages, centroids=make_centroids(pages.keys, pages.values, pages=numbers)
            )
        for layer, sums in _page_sums(layers, shapes, layout, maps or {}).items():
            layers[layer] = replace(layers[layer], page_sums=sums)
        return layers
    except (RuntimeError, torch.OutOfMemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise NoMemory(f"out of memory for {frames} KV frames: {reason}") from error


def _page_sums(
    layers: Sequence[LayerPages],
    shapes: Sequence[LayerShape],
    layout: Layout,
    maps: Mapping[int, FeatureMap],
) -> dict[int, PageSums]:
    """Of these layers; those that share a slot lie in one tensor, as their pages do."""
    found: dict[int, PageSums] = {}
    slots: dict[int, torch.Tensor] = {}
    for layer, own in maps.items():
        pages, scale, slot = layers[layer], shapes[layer].scale, layout.places[layer].slot
        assert scale is not None
        if slot not in slots:
            slots[slot] = make_page_sums(own, pages.keys, pages.values, scale=scale).sums
        found[layer] = PageSums(own, slots[slot], scale)
    return found


class _Slots:
    """One tensor of keys and one of values for each slot of a frame."""

    def __init__(
        self,
        shapes: Sequence[LayerShape],
        layout: Layout,
        frames: int,
        dtype: torch.dtype,
        device: torch.device,
        bounds: bool,
    ) -> None:
        self._shapes, self._layout, self._frames = shapes, layout, frames
        self._dtype, self._device, self._bounds = dtype, device, bounds
        self._slots: dict[int, LayerPages] = {}
        self._copies: dict[int, FourBitKeys] = {}
        self._scales: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def layers(self) -> list[LayerPages]:
        return [
            self._eight_bit(layer, place)
            if layer in self._layout.eight_bit
            else self._plain(layer, place)
            for layer, place in enumerate(self._layout.places)
        ]

    def _slot(self, layer: int, slot: int) -> LayerPages:
        if slot not in self._slots:
            self._slots[slot] = self._shapes[layer].pages(
                self._frames, dtype=self._dtype, device=self._device, bounds=self._bounds
            )
        return self._slots[slot]

    def _plain(self, layer: int, place: Place) -> LayerPages:
        slot = self._slot(layer, place.slot)
        copies = self._four_bit(layer, place.slot) if layer in self._layout.four_bit else None
        return replace(slot, frame=place.frame, four_bit=copies)

    def _four_bit(self, layer: int, slot: int) -> FourBitKeys:
        if slot not in self._copies:
            self._copies[slot] = self._shapes[layer].four_bit(self._frames, self._device)
        return self._copies[slot]

    def _eight_bit(self, layer: int, place: Place) -> EightBitPages:
        slot, shape = self._slot(layer, place.slot), self._shapes[layer]
        shared = self._scales.setdefault((place.slot, place.part), self._new_scales(shape))
        return EightBitPages(
            _bytes(slot.keys, place.part),
            _bytes(slot.values, place.part),
            frame=place.frame,
            key_scales=shared[0],
            value_scales=shared[1],
            dtype=self._dtype,
        )

    def _new_scales(self, shape: LayerShape) -> tuple[torch.Tensor, torch.Tensor]:
        rows = (self._frames, shape.kv_heads, PAGE_TOKENS)
        keys, values = (torch.zeros(rows, dtype=SCALE, device=self._device) for _ in range(2))
        return keys, values


def _bytes(pages: torch.Tensor, part: int) -> torch.Tensor:
    """One of the pages in 8 bits that share a page: int8, in the shape of ``pages``."""
    shape = pages.shape
    raw = pages.view(len(pages), -1).view(torch.int8)
    return raw.view(shape[0], pages.element_size(), *shape[1:])[:, part]
