"""The script that trains the recall model learns, and repeats itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from benchmarks.recall.documents import ANSWER_VALUES
from benchmarks.recall.engine import Engine
from benchmarks.recall.measure import documents
from benchmarks.recall.policies import compared
from benchmarks.recall.train import Stage, batch, new_model, save, train
from benchmarks.recall.training_attention import spread
from benchmarks.recall.vocabulary import ASK, END, FILLER, KEYS, VALUES

TINY = Stage(steps=30, texts=4, tokens=48, records=3, questions=3)


def losses() -> list[float]:
    """Of a few steps."""
    return [loss for loss, _ in train(new_model(1), [TINY])]


def test_the_loss_falls_and_repeats() -> None:
    first = losses()
    assert np.mean(first[-3:]) < 0.8 * np.mean(first[:3])
    assert first == losses()


def test_answers_are_what_follows_their_places() -> None:
    learnt = batch(TINY, np.random.default_rng(0))
    answers = learnt.answers.view(TINY.texts, TINY.questions, ANSWER_VALUES + 1)
    assert (answers[..., -1] == END).all()
    assert np.isin(answers[..., :-1].numpy(), list(VALUES)).all()
    assert torch.equal(learnt.answers, learnt.tokens[:, learnt.places + 1])


def test_filler_alone_counts_more_than_once() -> None:
    stage = Stage(steps=1, texts=4, tokens=48, records=3, questions=3, counts=100.0)
    learnt = batch(stage, np.random.default_rng(0))
    counted = learnt.log_counts > 0
    records = torch.isin(learnt.tokens, torch.tensor([ASK, END, *KEYS]))
    assert not (counted & records).any()
    assert counted[learnt.tokens >= FILLER.start].all()
    assert not counted[:, TINY.tokens :].any()
    assert learnt.log_counts.max() > 1


@torch.inference_mode()
def test_filler_that_counts_twice_is_filler_that_stands_there_twice() -> None:
    """In layers without positions; a key's score is all that its number changes."""
    from benchmarks.recall.training_attention import attend

    numbers = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(1, 2, 6, 8, generator=numbers) for _ in "qkv")
    twice = torch.tensor([[0.0, 0.0, np.log(2.0), 0.0, 0.0, 0.0]]).float()
    module = torch.nn.Identity()
    repeated = [0, 1, 2, 2, 3, 4, 5]
    longer = [x[:, :, repeated] for x in (query, key, value)]
    expected, _ = attend(
        module,
        longer[0],
        longer[1],
        longer[2],
        None,
        scaling=0.3,
        log_counts=torch.zeros(1, 7),
        spreads=[],
    )
    found, _ = attend(module, query, key, value, None, scaling=0.3, log_counts=twice, spreads=[])
    torch.testing.assert_close(found[:, 3:], expected[:, 4:])


def test_what_is_saved_is_served(tmp_path: Path) -> None:
    save(new_model(1), tmp_path)
    engine = Engine(tmp_path, compared(), kv_tokens=8192)
    answers = engine.ask(documents(512, 8, 1)[0], range(3), "strict")
    assert [len(answer.tokens) <= ANSWER_VALUES + 1 for answer in answers] == [True] * 3


def test_the_spread_of_filler_keys_has_no_scale() -> None:
    numbers = torch.Generator().manual_seed(2)
    key = torch.randn(2, 2, 40, 8, generator=numbers)
    log_counts = torch.zeros(2, 40)
    log_counts[:, :30] = 1.0
    found = spread(key, log_counts)
    assert 0.8 < found < 1.2, "all keys are drawn alike"
    torch.testing.assert_close(spread(key * 7, log_counts), found)
    key[:, :, :30] = key[:1, :, :1]
    assert spread(key, log_counts) < 1e-9
