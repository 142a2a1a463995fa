"""Where each layer's part of a page lies. Pure.

All layers of one group live and die together; a page takes whole frames for each group, and all
frames are of one size, so that what one group gives up any other can use.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate

SCALES_BYTES = 4
"""Of one token and kv head where it is stored in 8 bits: a scale for its key and its value."""


FOUR_BIT_SCALE_BYTES = 2
"""Of one key where it is kept in 4 bits too."""

FOUR_BIT_MEAN_BYTES = 4
"""Of one number of the mean that is kept apart of a page's keys in 4 bits."""

WASTE = 1 / 6
"""Of the memory of a group's part of a page, what frames may leave empty."""


@dataclass(frozen=True, slots=True)
class Place:
    """Of one layer in a page.

    Attributes:
        frame: of the page.
        slot: of the frame; as large as what one layer keeps of a page.
        part: of the slot, where it holds several layers in 8 bits; else 0.
    """

    frame: int
    slot: int
    part: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """How pages lie in frames.

    Attributes:
        slots: layers of a frame, unless they are stored in 8 bits.
        sizes: frames of a page, for each group of layers.
        places: one a layer.
        eight_bit: layers that are stored in 8 bits.
        itemsize: bytes of a number elsewhere; so many of those layers share a slot.
        four_bit: layers whose keys are kept in 4 bits too.
    """

    slots: int
    sizes: tuple[int, ...]
    places: tuple[Place, ...]
    eight_bit: frozenset[int]
    itemsize: int
    four_bit: frozenset[int] = frozenset()

    @property
    def four_bit_slots(self) -> frozenset[int]:
        """Slots of a frame beside which keys are kept in 4 bits."""
        return frozenset(self.places[layer].slot for layer in self.four_bit)

    def frame_bytes(
        self,
        token_bytes: Sequence[int],
        kv_heads: int,
        page_tokens: int,
        four_bit_bytes: Sequence[int] = (),
    ) -> int:
        """Bytes of a frame, scales included, where a layer takes so much for a token.

        Layers that differ all lie in one frame, each in its own slot; else any will do.

        Args:
            token_bytes: of each layer.
            kv_heads: of a layer.
            page_tokens: of a page.
            four_bit_bytes: of each layer, what a page's keys take in 4 bits.
        """
        scales = self.slots * self.itemsize * kv_heads * SCALES_BYTES if self.eight_bit else 0
        copies = sum(four_bit_bytes[slot] for slot in self.four_bit_slots)
        return page_tokens * (sum(token_bytes[: self.slots]) + scales) + copies


def layout(
    groups: Sequence[Sequence[int]],
    eight_bit: Collection[int] = (),
    *,
    four_bit: Collection[int] = (),
    itemsize: int = 4,
) -> Layout:
    """The layout with the largest frames that waste at most ``WASTE`` of any group's part.

    Every frame of a page costs a block table in each step.

    Args:
        groups: the layers of each; all of a group are in 8 bits, or none.
        eight_bit: layers stored in 8 bits.
        four_bit: layers whose keys are kept in 4 bits too.
        itemsize: bytes of a number elsewhere.
    """
    layers = sum(len(group) for group in groups)
    parts = [itemsize if group[0] in eight_bit else 1 for group in groups]
    alike = list(zip(groups, parts, strict=True))
    slots = next(
        size
        for size in range(layers, 0, -1)
        if all(_slots(len(g), n, size) <= (1 + WASTE) * _slots(len(g), n, 1) for g, n in alike)
    )
    sizes = tuple(_slots(len(g), n, slots) // slots for g, n in alike)
    places: dict[int, Place] = {}
    for group, ratio, first in zip(groups, parts, accumulate(sizes, initial=0), strict=False):
        for index, layer in enumerate(group):
            frame, rest = divmod(index, ratio * slots)
            places[layer] = Place(first + frame, *divmod(rest, ratio))
    return Layout(
        slots,
        sizes,
        tuple(places[i] for i in range(layers)),
        frozenset(eight_bit),
        itemsize,
        frozenset(four_bit),
    )


def four_bit_bytes(kv_heads: int, d: int, page_tokens: int) -> int:
    """Bytes of the keys of one page in one layer, in 4 bits."""
    return kv_heads * (page_tokens * (d // 2 + FOUR_BIT_SCALE_BYTES) + FOUR_BIT_MEAN_BYTES * d)


def _slots(layers: int, ratio: int, frame: int) -> int:
    """Slots of the frames that so many layers need, ``ratio`` of them in a slot."""
    return -(-layers // (ratio * frame)) * frame
