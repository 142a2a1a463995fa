"""How a decoder chooses the words of an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INT32_MAX = (1 << 31) - 1
SEED_MAX = (1 << 64) - 1
TOKEN_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The options of a generated answer; what is None is left to the server.

    Attributes:
        max_tokens: of the answer at most, reasoning included.
        temperature: 0 is greedy.
        top_k: only the k most likely tokens; 0 means all.
        top_p: only the most likely tokens that together reach this probability.
        min_p: only tokens at least this likely relative to the most likely one.
        seed: the same seed gives the same answer; None draws one for each call.
        stop: texts, or ids of tokens, that end the answer and are not part of it; a text alone
            is taken as the only one.
        json_schema: the answer is JSON of this schema; a mapping is kept as its text.
        regex: the whole answer matches it.
        attention: name of the policy that the documents are read under: "full", "window",
            "hybrid", "hierarchical", or another that the server's model knows.

    Raises:
        ValueError: both a schema and an expression, an empty stop text, a number that the wire
            cannot carry. Whether the numbers make sense is for the server to say.
        TypeError: a stop is neither text nor an id.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | Sequence[str | int] = ()
    json_schema: str | Mapping[str, Any] | None = None
    regex: str | None = None
    attention: str | None = None

    def __post_init__(self) -> None:
        if self.json_schema is not None and self.regex is not None:
            raise ValueError("an answer has a JSON schema or a regular expression, not both")
        _check_range("max_tokens", self.max_tokens, -INT32_MAX, INT32_MAX)
        _check_range("top_k", self.top_k, -INT32_MAX, INT32_MAX)
        _check_range("seed", self.seed, 0, SEED_MAX)
        object.__setattr__(self, "stop", _stops(self.stop))
        if self.json_schema is not None and not isinstance(self.json_schema, str):
            object.__setattr__(self, "json_schema", json.dumps(self.json_schema))


def _stops(stop: str | Sequence[str | int]) -> tuple[str | int, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for one in stops:
        if not isinstance(one, str | int):
            raise TypeError(f"a stop is a text or the id of a token, not {one!r}")
        if isinstance(one, int):
            _check_range("stop", one, 0, TOKEN_MAX)
        elif not one:
            raise ValueError("a stop text must not be empty")
    return stops


def _check_range(name: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value}")
