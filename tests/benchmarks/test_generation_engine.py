"""The engine that is compared with others starts from its command line, and answers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks.generation import OURS, Engines, prompt
from benchmarks.peers.process import EngineFailed
from benchmarks.peers.protocol import Work

from tests.worker.decoders import tiny_decoder

VOCABULARY = 300


def test_our_engine_answers_as_often_as_it_was_asked_to(tmp_path: Path) -> None:
    tiny_decoder("qwen2", tmp_path / "float32", stop_tokens=())
    work = Work([[t % VOCABULARY for t in prompt(random.Random(0), 40)] for _ in range(3)], 5)
    with Engines(tmp_path, None).start(OURS, "float32") as engine:
        answers = engine.answer(work)
    assert [len(answer.tokens) for answer in answers] == [5, 5, 5]
    assert all(0 < answer.first_s <= answer.last_s for answer in answers)


def test_an_engine_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="float32 does not exist"):
        Engines(tmp_path, None).start(OURS, "float32")
