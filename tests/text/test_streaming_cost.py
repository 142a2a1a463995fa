"""The work of streaming grows with the text, not with its square."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from longspan.server.text.cuts import MARKS, WordCuts
from longspan.server.text.tokeniser import StreamingTokeniser
from tests.text.families import tokenizer_of


@dataclass(frozen=True)
class CountingRule(WordCuts):
    """Counts the places it is asked about."""

    asked: list[int] = field(default_factory=lambda: [0])

    def is_safe(self, text: str, position: int) -> bool:
        self.asked[0] += 1
        return super().is_safe(text, position)


@pytest.mark.parametrize(
    "unit", ["a", "TG9uZ3Nw+/", "word ", "甲，", "one long line, " + "x" * 5000]
)
@pytest.mark.parametrize(("step", "least"), [(1, 1), (1, 2048), (999, 1), (70_000, 2048)])
def test_each_place_is_looked_at_a_few_times(
    unit: str, step: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = CountingRule(MARKS)
    monkeypatch.setattr("longspan.server.text.tokeniser._rule_of", lambda _: rule)
    text = (unit * 20_000)[:20_000]
    tokeniser = StreamingTokeniser(tokenizer_of("small_qwen2"), piece_chars=1000, least_chars=least)
    for at in range(0, len(text), step):
        tokeniser.feed(text[at : at + step])
    tokeniser.finish()
    assert rule.asked[0] <= 4 * len(text)


def test_a_megabyte_without_a_cut_is_collected_one_character_at_a_time() -> None:
    """A second or so; copying what waits at each feed would take hours."""
    tokeniser = StreamingTokeniser(tokenizer_of("small_qwen2"), least_chars=1)
    started = time.process_time()
    for _ in range(1 << 20):
        assert not tokeniser.feed("a")
    assert time.process_time() - started < 30.0
