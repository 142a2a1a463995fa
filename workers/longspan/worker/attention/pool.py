"""The tensors that KV pages live in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from longspan.worker.attention.centroids import Centroids
from longspan.worker.attention.four_bit_keys import FourBitKeys
from longspan.worker.attention.linear.page_sums import PageSums
from longspan.worker.attention.selectors import quest

PAGE_TOKENS = 256
"""Tokens of one page: flash-attn 2 takes multiples of 256 only."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerPages:
    """The KV pages of one layer.

    Attributes:
        keys: [pages, kv_heads, PAGE_TOKENS, d].
        values: [pages, kv_heads, PAGE_TOKENS, dv]; a view of the keys where the model caches
            latents (MLA).
        bounds: [kv_heads, pages, BLOCKS, 2 d], see ``selectors.quest``, right for pages that are
            full; None where no policy selects pages.
        frame: which of a page's frames the layer lies in; block tables differ by it.
        centroids: the means of the pages, of full ones; None where no policy looks at them.
        page_sums: the linear states behind full pages; None likewise.
        four_bit: the keys of full pages in 4 bits; None where no policy selects by them.
    """

    keys: torch.Tensor
    values: torch.Tensor
    bounds: torch.Tensor | None = None
    centroids: Centroids | None = None
    page_sums: PageSums | None = None
    frame: int = 0
    four_bit: FourBitKeys | None = None

    @property
    def latent(self) -> bool:
        """True where the values are a part of the keys."""
        return self.values.data_ptr() == self.keys.data_ptr()

    def write(self, slots: Slots, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Store a row's tokens.

        ``keys`` and ``values`` are [kv_heads, tokens, d] and [kv_heads, tokens, dv].
        """
        self.begin(slots)
        stored = [(self.keys, keys)] if self.latent else [(self.keys, keys), (self.values, values)]
        for pages, new in stored:
            if slots.single is not None:
                page, offset = slots.single
                pages[page, :, offset] = new[:, 0]
            else:
                pages[slots.pages, :, slots.offsets] = new.transpose(0, 1)
        self.complete(slots)

    def begin(self, slots: Slots) -> None:
        """What comes before a row's tokens are stored."""
        if slots.fresh is not None:
            self.keys.index_fill_(0, slots.fresh, 0)
            if not self.latent:
                self.values.index_fill_(0, slots.fresh, 0)

    def read(
        self, pages: Sequence[int], at_once: int, *, again: bool
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The keys and values of whole pages, [pages, kv_heads, PAGE_TOKENS, ..], so many at once.

        ``again`` says that the same pages will be read in the next step, and some time is saved
        where they can stay.
        """
        for first in range(0, len(pages), at_once):
            found = torch.tensor(pages[first : first + at_once], device=self.keys.device)
            yield self.keys[found], self.values[found]

    def complete(self, slots: Slots) -> None:
        """Note down what the pages that became full hold, all their keys being there."""
        if slots.completed is not None and self.bounds is not None:
            self.bounds[:, slots.completed] = quest.bounds(self.keys[slots.completed])
        if slots.completed is not None and self.four_bit is not None and slots.copied:
            self.four_bit.write(slots.completed, self.keys[slots.completed])
        if slots.completed is not None and slots.summarised is not None:
            self._summarise(slots.completed, slots.summarised, slots.before)

    def _summarise(
        self, pages: torch.Tensor, places: torch.Tensor, before: torch.Tensor | None
    ) -> None:
        """Write down what stands for these pages where nobody looks into them."""
        keys, values = self.keys[pages], self.values[pages]
        if self.centroids is not None:
            self.centroids.write(places, keys, values)
        if self.page_sums is not None and before is not None:
            self.page_sums.write(places, before, keys, values)


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """Where the tokens of a packed row are stored.

    Attributes:
        pages, offsets: int64 [tokens].
        fresh: int64, pages that get their first token and stay in part unwritten; they are
            zeroed before: a kernel that multiplies masked values by zero would let a NaN through
            that a former owner left. None where there are none, and in a decode step on a GPU,
            whose kernels do not read behind the last key.
        completed: int64, pages that get their last token and may be selected from then on.
        summarised: int64, where what stands for these is kept, for those who do not look into
            them; None where nobody asks for it.
        before: int64, the same of the page before each of these, -1 where a sequence begins; None
            where nobody asks for linear states.
        places: the same two of each page, as integers of the host.
        copied: somebody selects by copies of the keys.
    """

    pages: torch.Tensor
    offsets: torch.Tensor
    fresh: torch.Tensor | None
    completed: torch.Tensor | None = None
    summarised: torch.Tensor | None = None
    before: torch.Tensor | None = None
    single: tuple[int, int] | None = None
    places: Sequence[tuple[int, int]] = ()
    copied: bool = True
