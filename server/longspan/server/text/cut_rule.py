"""What every rule of safe cuts can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod

from tokenizers import Tokenizer


class CutRule(ABC):
    """The safe cuts of one tokenizer."""

    __slots__ = ()

    @abstractmethod
    def is_safe(self, text: str, position: int) -> bool:
        """True when ``text`` may be cut before ``position``, which is at least 1."""

    def continuation(self, tokenizer: Tokenizer) -> Tokenizer:
        """The tokenizer of what follows a cut; the same one unless it marks a text's start."""
        return tokenizer

    def last(self, text: str, start: int, end: int) -> int | None:
        """The last safe cut in ``[start, end)``; ``start`` is at least 1."""
        for position in range(end - 1, start - 1, -1):
            if self.is_safe(text, position):
                return position
        return None

    def first(self, text: str, start: int) -> int | None:
        """The first safe cut from ``start`` on, which is at least 1."""
        for position in range(start, len(text)):
            if self.is_safe(text, position):
                return position
        return None
