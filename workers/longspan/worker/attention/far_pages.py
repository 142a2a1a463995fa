"""The far pages of a step's blocks: those that a kv head could select and did not.

Blocks are looked at together, in tiles whose numbers are bounded. No page may be both far and
selected: its keys would be counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from longspan.worker.attention.equal_lengths import Run, same_lengths
from longspan.worker.attention.layer_plan import SelectingRows
from longspan.worker.attention.selectors.places import run_of

NUMBERS = 2**22
"""Scores, and numbers of summaries, that are written out at once: 16 MiB of each."""


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Neighbouring blocks with equally many queries.

    Attributes:
        run: the blocks, and where their queries are.
        pages: int64 [blocks, candidates], a block's last one repeated behind it.
        slice: the same as a slice of the pool, where one block's candidates are neighbours.
        counts: int64 [blocks], candidates of each.
    """

    run: Run
    pages: torch.Tensor
    slice: slice | None
    counts: torch.Tensor

    def part(self, first: int, last: int) -> Lane:
        """The same blocks, but of their candidates the places [first, last) alone."""
        run = self.slice
        return Lane(
            self.run,
            self.pages[:, first:last],
            None if run is None else slice(run.start + first, run.start + last),
            (self.counts - first).clamp(0, last - first),
        )

    def gathered(self, slots: torch.Tensor) -> torch.Tensor:
        """What is kept of the candidates, in float32.

        ``slots`` is [kv_heads, slots, ..]; the result [kv_heads, blocks, candidates, ..].
        """
        if self.slice is not None:
            return slots[:, None, self.slice].float()
        return slots[:, self.pages].float()

    def hidden(self, selected: torch.Tensor | None) -> torch.Tensor:
        """Candidates that are not far, or no block's own: bool [kv_heads or 1, blocks, candidates].

        ``selected`` is int64 [all blocks, kv_heads, pages].
        """
        pages = self.pages
        padding = torch.arange(pages.shape[1], device=pages.device) >= self.counts[:, None]
        if selected is None:
            return padding[None]
        mine = selected[self.run.first : self.run.last]
        chosen = (pages[:, None, :, None] == mine[:, :, None]).any(-1)
        return (chosen | padding[:, None]).transpose(0, 1)


class FarPages:
    """A step's blocks of one selecting policy.

    Args:
        numbers: see ``NUMBERS``.
    """

    def __init__(
        self, blocks: SelectingRows, device: torch.device, *, numbers: int = NUMBERS
    ) -> None:
        self._blocks = blocks
        self._device = device
        self._numbers = numbers
        self._runs = same_lengths(blocks.rows)
        self._lanes: dict[tuple[int, int, int, int | None], list[Lane]] = {}

    def tiles(
        self, *, heads: int, width: int, parts: int, at_once: int | None = None
    ) -> list[Lane]:
        """The blocks in tiles of bounded size, or one by one; the same for all layers of a shape.

        Args:
            heads: of the query.
            width: numbers that all kv heads keep of one part of a page.
            parts: of a page.
            at_once: so many pages of a tile at most are looked at together; None: all.
        """
        shape = heads, width, parts, at_once
        if shape not in self._lanes:
            self._lanes[shape] = list(self._cut(*shape))
        return self._lanes[shape]

    def _cut(self, heads: int, width: int, parts: int, at_once: int | None) -> Iterator[Lane]:
        for run in self._runs:
            candidates = self._blocks.candidates[run.first : run.last]
            longest = max(len(pages) for pages in candidates)
            most = min(longest, at_once or longest) * parts
            size = max(1, self._numbers // (most * max(heads * run.length, width)))
            for first in range(run.first, run.last, size):
                at = run.query + (first - run.first) * run.length
                yield self._lane(Run(first, min(first + size, run.last), at, run.length))

    def _lane(self, run: Run) -> Lane:
        tables = self._blocks.candidates[run.first : run.last]
        counts = [len(table) for table in tables]
        # A page that nobody wrote may hold NaN, which weighs nothing and spoils all the same.
        padded = [np.pad(table, (0, max(counts) - len(table)), mode="edge") for table in tables]
        pages = np.stack(padded).astype(np.int64)
        return Lane(
            run,
            torch.from_numpy(pages).to(self._device),
            run_of(pages[0]) if len(pages) == 1 else None,
            torch.tensor(counts, device=self._device),
        )
