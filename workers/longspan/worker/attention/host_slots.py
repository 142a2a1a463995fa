"""Where the pages lie on the device that were copied to it from the host: a layer's slots."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longspan.worker.attention.slot_cache import SlotCache


class Copy(NamedTuple):
    """One kv head of a page, from the host into a frame."""

    page: int
    head: int
    frame: int


class HostSlots:
    """The frames of one layer that hold pages of the host.

    Slot i of kv head h is that head's part of frame ``first + i``, so that kernels read it like
    any page.

    Args:
        first: frame of the layer's tensors.
        slots: frames from there on.
        pages: numbers that pages on the host may have.

    Attributes:
        hits: parts of pages that were wanted and lay in a slot.
        misses: those that were copied.
    """

    def __init__(self, first: int, slots: int, kv_heads: int, pages: int) -> None:
        self.first = first
        self.slots = slots
        self.hits = 0
        self.misses = 0
        self._cache = SlotCache(kv_heads, slots, pages)
        self._rewritten = np.zeros(pages, np.bool_)

    def rewritten(self, page: int) -> None:
        """The host has other numbers under this one; any thread may say so."""
        self._rewritten[page] = True

    def place(self, selected: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], list[Copy]]:
        """Frames for ``selected`` [rows, kv_heads, pages], which must fit; until called again.

        Returns:
            The frames, in the same shape, and what must be copied before they are read.
        """
        self._cache.leave()
        self._forget()
        heads, pages, slots = self._cache.hold(selected)
        self.misses += len(pages)
        self.hits += selected.size - len(pages)
        frames = (slots + self.first).tolist()
        copies = map(Copy, pages.tolist(), heads.tolist(), frames)
        return self._cache.slots_of(selected) + self.first, list(copies)

    def _forget(self) -> None:
        gone = np.flatnonzero(self._rewritten)
        if len(gone):
            self._rewritten[gone] = False
            self._cache.forget(gone)
