"""What the attention of one step is about, as integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.pool import PAGE_TOKENS, Slots


@dataclass(frozen=True, slots=True, eq=False)
class AttentionRows:
    """The chunks of a packed row.

    Queries of chunk i stand at positions [starts[i], starts[i] + lengths[i]) of its sequence
    and see the keys at [0, own position].

    Attributes:
        starts: int64 [chunks].
        lengths: int64 [chunks].
        block_tables: one int32 array a chunk: the pages of positions [0, start + length).
        numbers: the same pages by their numbers, where what stands for a page is found by it.
    """

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    block_tables: Sequence[npt.NDArray[np.int32]]
    numbers: Sequence[npt.NDArray[np.int32]] | None = None

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """Keys of each chunk: int64 [chunks]."""
        return self.starts + self.lengths

    @property
    def tokens(self) -> int:
        """Tokens of the packed row."""
        return int(self.lengths.sum())

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """First token of each chunk in the packed row, then its length: int64 [chunks + 1]."""
        return np.concatenate(([0], np.cumsum(self.lengths)))

    def behind(self, pages: int) -> AttentionRows:
        """The same queries behind so many more pages, whose places hold page 0."""
        room = np.zeros(pages, np.int32)
        tables = [np.concatenate((room, table)) for table in self.block_tables]
        return AttentionRows(self.starts + pages * PAGE_TOKENS, self.lengths, tables)

    def slots(
        self,
        device: torch.device,
        *,
        bounds: bool = True,
        summaries: bool = True,
        sums: bool = True,
        copies: bool = True,
    ) -> Slots:
        """Where the row's tokens are stored, on ``device``.

        ``bounds`` says that some sequence of the row selects pages, ``copies`` that some does by
        copies of the keys, ``summaries`` that some sees those that it does not select by what
        stands for them, ``sums`` that for some it is a linear state.
        """
        positions = [
            np.arange(start, end) for start, end in zip(self.starts, self.ends, strict=True)
        ]
        pages = [
            table[position // PAGE_TOKENS]
            for table, position in zip(self.block_tables, positions, strict=True)
        ]
        page = torch.from_numpy(np.concatenate(pages).astype(np.int64)).to(device)
        offset = torch.from_numpy(np.concatenate(positions) % PAGE_TOKENS).to(device)
        fresh = self._begun(device)
        known = self._completed(self.block_tables) if bounds or summaries else None
        named = self._completed(self.numbers) if summaries and self.numbers else known
        full = None if known is None else torch.from_numpy(known).to(device)
        summarised = full
        if named is not None and named is not known:
            summarised = torch.from_numpy(named).to(device)
        alone = device.type == "cpu" and len(page) == 1
        return Slots(
            page,
            offset,
            fresh,
            full,
            summarised if summaries else None,
            self._before(device) if sums and summaries and full is not None else None,
            (int(page), int(offset)) if alone else None,
            _pairs(known, named) if summaries else (),
            copies,
        )

    def _begun(self, device: torch.device) -> torch.Tensor | None:
        """The pages that get their first token with this row, and do not become full."""
        begun = [
            table[end // PAGE_TOKENS]
            for table, start, end in zip(self.block_tables, self.starts, self.ends, strict=True)
            if end % PAGE_TOKENS and start <= end // PAGE_TOKENS * PAGE_TOKENS
        ]
        return torch.tensor(begun, dtype=torch.int64).to(device) if begun else None

    def _completed(self, tables: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.int64] | None:
        """The pages that become full with this row."""
        firsts, lasts = self.starts // PAGE_TOKENS, self.ends // PAGE_TOKENS
        full = [
            table[first:last]
            for table, first, last in zip(tables, firsts, lasts, strict=True)
            if last > first
        ]
        return np.concatenate(full).astype(np.int64) if full else None

    def _before(self, device: torch.device) -> torch.Tensor:
        """Where what stands for the page before each of those is kept; -1 before the first."""
        firsts, lasts = self.starts // PAGE_TOKENS, self.ends // PAGE_TOKENS
        behind = [
            np.concatenate((np.array([-1], np.int32), table))[first:last]
            for table, first, last in zip(
                self.numbers or self.block_tables, firsts, lasts, strict=True
            )
        ]
        return torch.from_numpy(np.concatenate(behind).astype(np.int64)).to(device)


def _pairs(
    known: npt.NDArray[np.int64] | None, named: npt.NDArray[np.int64] | None
) -> list[tuple[int, int]]:
    if known is None or named is None:
        return []
    return list(zip(known.tolist(), named.tolist(), strict=True))
