"""Where the pages lie that are selected from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Pages of a pool, in the order of their sequence.

    Attributes:
        table: int64 [pages].
        run: the same as a slice where they are neighbours: what lies there is read in place.
    """

    table: torch.Tensor
    run: slice | None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def index(self) -> slice | torch.Tensor:
        """What a tensor of pages is indexed with."""
        return self.table if self.run is None else self.run

    def first(self, pages: int) -> Places:
        """The first so many of them."""
        return self._part(0, min(pages, len(self)))

    def tiles(self, size: int) -> Iterator[Places]:
        """All of them, so many at a time."""
        for first in range(0, len(self), size):
            yield self._part(first, min(first + size, len(self)))

    def _part(self, first: int, last: int) -> Places:
        table, run = self.table[first:last], self.run
        if run is None:
            return Places(table, None)
        return Places(table, slice(run.start + first, run.start + last))


def places_of(table: npt.NDArray[np.int64], device: torch.device) -> Places:
    """The places of a block table's pages."""
    return Places(torch.from_numpy(table).to(device), run_of(table))


def run_of(table: npt.NDArray[np.int64]) -> slice | None:
    """The pages as a slice of the pool where they are neighbours."""
    if len(table) and np.array_equal(table, np.arange(table[0], table[0] + len(table))):
        return slice(int(table[0]), int(table[-1]) + 1)
    return None
