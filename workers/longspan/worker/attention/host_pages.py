"""The KV pages of a layer whose far pages lie in the host's memory.

The first pages of a sequence and those of its window lie in frames on the device, like any
page's. A page is copied to the host when it becomes full: it is written once, whole, and always
before its frame is given up. What was chosen of it comes back one kv head at a time, by one copy
straight from the host's memory, which is pinned where the device is a GPU. Copies and kernels are
queued on one stream, so neither waits for the other on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from longspan.worker.attention.host_slots import HostSlots
from longspan.worker.attention.pool import LayerPages, Slots
from longspan.worker.attention.selectors import quest


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class HostPages(LayerPages):
    """The KV pages of one layer. Latents never lie so.

    Attributes:
        keys, values: on the device, by frame; some frames are slots.
        bounds: [kv_heads, numbers, BLOCKS, 2 d] on the device, by a page's number.
        host_keys: [numbers, kv_heads, PAGE_TOKENS, d], full pages by their numbers.
        host_values: [numbers, kv_heads, PAGE_TOKENS, dv].
        slots: which of the frames hold pages of the host.
    """

    host_keys: torch.Tensor
    host_values: torch.Tensor
    slots: HostSlots

    def bring(self, selected: torch.Tensor) -> torch.Tensor:
        """Where chosen pages can be read; until this is called again.

        ``selected`` is int64 [rows, kv_heads, pages], numbers of pages; the result is as large,
        their frames. A kv head's pages of all rows must fit into the slots.
        """
        frames, copies = self.slots.place(selected.cpu().numpy())
        for page, head, frame in copies:
            self.keys[frame, head].copy_(self.host_keys[page, head], non_blocking=True)
            self.values[frame, head].copy_(self.host_values[page, head], non_blocking=True)
        return torch.from_numpy(frames).to(self.keys.device)

    def read(
        self, pages: Sequence[int], at_once: int, *, again: bool
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """See ``LayerPages.read``; by their numbers."""
        if again and len(pages) <= self.slots.slots:
            yield self._kept(pages)
            return
        for first in range(0, len(pages), at_once):
            yield self._copied(pages[first : first + at_once])

    def _copied(self, pages: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.keys.device
        keys, values = (
            torch.empty(len(pages), *host.shape[1:], dtype=host.dtype, device=device)
            for host in (self.host_keys, self.host_values)
        )
        for place, page in enumerate(pages):
            keys[place].copy_(self.host_keys[page], non_blocking=True)
            values[place].copy_(self.host_values[page], non_blocking=True)
        return keys, values

    def _kept(self, pages: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        kv_heads = self.keys.shape[1]
        wanted = np.broadcast_to(np.array(pages, np.int64), (1, kv_heads, len(pages)))
        frames = self.bring(torch.from_numpy(wanted.copy()))[0].T
        heads = torch.arange(kv_heads, device=frames.device)
        return self.keys[frames, heads], self.values[frames, heads]

    def complete(self, slots: Slots) -> None:
        """See ``LayerPages.complete``: full pages are copied to the host."""
        if slots.completed is None or slots.summarised is None:
            return
        assert self.bounds is not None
        self.bounds[:, slots.summarised] = quest.bounds(self.keys[slots.completed])
        for frame, page in slots.places:
            self.host_keys[page].copy_(self.keys[frame], non_blocking=True)
            self.host_values[page].copy_(self.values[frame], non_blocking=True)
            self.slots.rewritten(page)
