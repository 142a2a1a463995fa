"""The token ids of one prompt, kept once, while it grows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longspan.server.errors import PromptTooLong

FIRST_TOKENS = 1024


class Prompt:
    """A growing array of ids, doubled when it is full and cut to its length when sealed.

    Attributes:
        sealed: no more will come.
        task_start: where the tokens of the seal begin; all before them are of documents and
            of what stands before those. The length until it is sealed.

    Args:
        limit_tokens: what the model can read, the first token of the answer included.
        task_tokens: what ``seal`` will add; kept free from the start, so that a prompt that
            cannot be completed is refused before its documents have arrived.
    """

    def __init__(self, limit_tokens: int, *, task_tokens: int = 0) -> None:
        self._limit_tokens = limit_tokens
        self._kept_tokens = task_tokens
        self._ids = np.empty(FIRST_TOKENS, np.uint32)
        self._length = 0
        self.task_start = 0
        self.sealed = False

    def __len__(self) -> int:
        return self._length

    def append(self, ids: NDArray[np.uint32]) -> None:
        """Add tokens of the documents.

        Raises:
            PromptTooLong: the model reads fewer; nothing was added.
        """
        self._add(ids)
        self.task_start = self._length

    def seal(self, ids: NDArray[np.uint32]) -> None:
        """Add the last tokens.

        Raises:
            PromptTooLong: the model reads fewer; nothing was added.
        """
        self._kept_tokens = 0
        self._add(ids)
        self.sealed = True
        self._ids = self._ids[: self._length].copy()

    def ends_at(self, place: int) -> bool:
        """True where nothing follows, now or later."""
        return self.sealed and place == self._length

    def part(self, start: int, end: int) -> bytes:
        """Tokens as the wire has them, little-endian uint32."""
        return self._ids[start : min(end, self._length)].astype("<u4", copy=False).tobytes()

    def _add(self, ids: NDArray[np.uint32]) -> None:
        assert not self.sealed
        length = self._length + len(ids)
        if length + self._kept_tokens >= self._limit_tokens:
            raise PromptTooLong(length + self._kept_tokens, self._limit_tokens)
        if length > len(self._ids):
            capacity = min(max(length, 2 * len(self._ids)), self._limit_tokens)
            grown = np.empty(capacity, np.uint32)
            grown[: self._length] = self._ids[: self._length]
            self._ids = grown
        self._ids[self._length : length] = ids
        self._length = length
