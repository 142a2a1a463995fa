"""Trains the recall model on the CPU, from a seed, and writes its folder.

python -m benchmarks.recall.train [FOLDER]
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.recall.architecture import config
from benchmarks.recall.documents import ANSWER_VALUES, QUESTION_TOKENS, document
from benchmarks.recall.initialisation import initialise
from benchmarks.recall.training_attention import ATTENTION, register
from benchmarks.recall.vocabulary import save_tokenizer

MODEL = Path(__file__).parent / "model"
SEED = 1
PEAK_RATE = 1.5e-3
WARMUP_STEPS = 100
KEY_TAX = 0.3
"""On the spread of filler's keys where positions do not count. Without it they differ as much as
those of records, and the bounds of a block of filler are as high as a match."""

REPORT_STEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of training.

    Attributes:
        tokens: of a document, without its questions.
        counts: filler stands for up to so many times as much.
    """

    steps: int
    texts: int
    tokens: int
    records: int
    questions: int
    counts: float = 1.0


STAGES = (
    Stage(steps=150, texts=16, tokens=64, records=4, questions=4, counts=2.0),
    Stage(steps=150, texts=8, tokens=192, records=12, questions=8, counts=16.0),
    Stage(steps=320, texts=4, tokens=448, records=32, questions=16, counts=256.0),
)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Texts to learn from.

    Attributes:
        tokens: int64 [texts, n].
        log_counts: float32 [texts, n], what is added to each key's score.
        places: int64 [m], of the tokens behind which an answer's tokens follow, in one text.
        answers: int64 [texts, m], these tokens.
    """

    tokens: torch.Tensor
    log_counts: torch.Tensor
    places: torch.Tensor
    answers: torch.Tensor


def batch(stage: Stage, random: np.random.Generator) -> Batch:
    """Documents with questions and answers behind them, all of one shape."""
    asked = QUESTION_TOKENS + ANSWER_VALUES + 1
    texts, outside = [], np.zeros((stage.texts, stage.tokens + stage.questions * asked), bool)
    for row in range(stage.texts):
        said = document(stage.tokens, stage.records, random)
        chosen = random.permutation(stage.records)[: stage.questions]
        parts = [part for one in chosen for part in (said.question(one), said.answer(one))]
        outside[row, : stage.tokens] = ~said.in_records()
        texts.append(np.concatenate([said.tokens, *parts]))
    tokens = torch.from_numpy(np.stack(texts))
    first = stage.tokens + QUESTION_TOKENS - 1
    starts = first + asked * torch.arange(stage.questions)
    places = (starts[:, None] + torch.arange(ANSWER_VALUES + 1)).flatten()
    logs = torch.from_numpy(random.uniform(0, math.log(stage.counts), stage.texts))
    log_counts = torch.where(torch.from_numpy(outside), logs.float()[:, None], 0.0)
    return Batch(tokens, log_counts, places, tokens[:, places + 1])


def loss_of(model: Any, learnt: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy with the tax on keys, and the share of answer tokens that are right."""
    spreads: list[torch.Tensor] = []
    hidden = model.model(
        input_ids=learnt.tokens, use_cache=False, log_counts=learnt.log_counts, spreads=spreads
    ).last_hidden_state
    logits = model.lm_head(hidden[:, learnt.places])
    loss = F.cross_entropy(logits.flatten(0, 1), learnt.answers.flatten())
    loss = loss + KEY_TAX * torch.stack(spreads).mean()
    return loss, (logits.argmax(-1) == learnt.answers).float().mean()


def new_model(seed: int) -> Any:
    """A random decoder whose attention is that of training."""
    from transformers import SmolLM3ForCausalLM

    register()
    torch.manual_seed(seed)
    settings = config()
    settings._attn_implementation = ATTENTION
    model = SmolLM3ForCausalLM(settings)
    initialise(model)
    return model


def train(model: Any, stages: Sequence[Stage], seed: int = SEED) -> Iterator[tuple[float, float]]:
    """Yields the loss and the share of right tokens after every step."""
    random = np.random.default_rng(seed)
    total = sum(stage.steps for stage in stages)
    optimiser = torch.optim.AdamW(
        model.parameters(), PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, total))
    for stage in stages:
        for _ in range(stage.steps):
            loss, right = loss_of(model, batch(stage, random))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            yield loss.item(), right.item()


def rate(step: int, total: int) -> float:
    """Share of the peak rate: a rise, then half a cosine down to a twentieth."""
    rise = min(1.0, (step + 1) / min(WARMUP_STEPS, max(1, total // 5)))
    return rise * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / total)))


def save(model: Any, folder: Path) -> None:
    """Write the folder that a worker loads, in half precision; the model is left as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).half().save_pretrained(folder)
    save_tokenizer(folder)


def main(folder: Path) -> None:
    """Train and write."""
    started = time.process_time()
    figures: list[tuple[float, float]] = []
    model = new_model(SEED)
    for loss, right in train(model, STAGES):
        figures.append((loss, right))
        if len(figures) % REPORT_STEPS == 0:
            seconds = time.process_time() - started
            loss, right = np.mean(figures[-REPORT_STEPS:], 0)
            step = f"{len(figures)} steps, {seconds:.0f} s of processors"
            print(f"{step}: loss {loss:.3f}, {right:.1%} of tokens right", flush=True)
    save(model, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall.train", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=MODEL)
    main(parser.parse_args().folder)
