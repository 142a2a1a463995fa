"""What a request says about how its tokens are chosen; checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

STOP_TEXTS = 16
"""Stop strings of one request."""

STOP_TEXT_CHARACTERS = 1024
"""Longest stop string, and text that an answer begins behind; as much may be held back."""


class GrammarKind(StrEnum):
    """How a grammar is written down."""

    JSON_SCHEMA = "JSON_SCHEMA"
    REGEX = "REGEX"


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """What the text must look like.

    Attributes:
        kind: how ``source`` is written.
        source: a JSON schema, or a regular expression that the whole text must match.
        begins_after: the text is free until this has appeared in it; empty: from the start.
    """

    kind: GrammarKind
    source: str
    begins_after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the tokens of one sequence are chosen, and when they end.

    Attributes:
        max_tokens: tokens of the answer; 0 generates nothing.
        temperature: 0 is greedy.
        top_k: the most probable tokens that are kept; 0 keeps all.
        top_p: probability mass that the most probable tokens must reach to be kept, (0, 1].
        min_p: least probability kept, as a part of the greatest, [0, 1].
        seed: the sequence's random numbers follow from it, 64 bits.
        stop_texts: the answer ends before the first of them.
        stop_tokens: beside the model's own.
        answer_begins: stops of either kind count from behind this text and the white space
            after it; empty: from the start.
        grammar: what the text must look like; None is free text.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    stop_texts: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    answer_begins: str = ""
    grammar: GrammarSpec | None = None

    def __post_init__(self) -> None:
        _require(self.max_tokens >= 0, "max_tokens is below 0")
        _require(math.isfinite(self.temperature), "temperature is not finite")
        _require(self.temperature >= 0, "temperature is below 0")
        _require(self.top_k >= 0, "top_k is below 0")
        _require(0 < self.top_p <= 1, "top_p is not in (0, 1]")
        _require(0 <= self.min_p <= 1, "min_p is not in [0, 1]")
        _require(0 <= self.seed < 1 << 64, "seed does not fit 64 bits")
        _require(len(self.stop_texts) <= STOP_TEXTS, f"more than {STOP_TEXTS} stop_texts")
        for text in self.stop_texts:
            _require(0 < len(text) <= STOP_TEXT_CHARACTERS, "stop_texts has an empty or long one")
        _require(all(token >= 0 for token in self.stop_tokens), "stop_tokens has one below 0")
        _require(len(self.answer_begins) <= STOP_TEXT_CHARACTERS, "answer_begins is too long")

    @property
    def greedy(self) -> bool:
        """True where the most probable token is taken."""
        return self.temperature == 0


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
