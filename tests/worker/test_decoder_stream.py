"""A decoder process serves sequences: the tokens are those of transformers, whoever else runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.worker.decoding import Answer, Decoding, decoder, decoding, stories, story_tokens
from tests.worker.harness import Worker

PROMPTS = (
    "Once upon a time, there was a little girl named Lily.",
    "Tom had a big red ball. He",
    "The cat and the dog",
)
COUNT = 200


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One worker for all tests of this module."""
    with decoder(stories()) as worker:
        yield worker


@pytest.fixture(scope="module")
def references() -> list[list[int]]:
    """What transformers generates for the prompts."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(stories(), dtype=torch.float32)
    return [generate(model, story_tokens(prompt)) for prompt in PROMPTS]


def generate(model: torch.nn.Module, prompt: list[int]) -> list[int]:
    """Greedy tokens behind a prompt."""
    ids = torch.tensor([prompt])
    out = model.generate(ids, max_new_tokens=COUNT, do_sample=False)  # type: ignore[operator]
    tokens: list[int] = out[0, len(prompt) :].tolist()
    return tokens


async def test_ready_describes_the_decoder(worker: Worker) -> None:
    """Model, type, context and page memory are said before anything else."""
    async with decoding(worker) as sequences:
        ready = sequences.ready
    assert (ready.model, ready.dtype, ready.device) == ("hf", "float32", "cpu")
    assert (ready.max_tokens, ready.dimension) == (512, 0)
    assert len(ready.fingerprint) == 64


async def test_greedy_tokens_equal_generate_alone(
    worker: Worker, references: list[list[int]]
) -> None:
    """One sequence at a time."""
    async with decoding(worker) as sequences:
        for prompt, reference in zip(PROMPTS, references, strict=True):
            answer = await sequences.answer(story_tokens(prompt), max_tokens=COUNT)
            assert answer.tokens == reference
            assert answer.reason == "LENGTH"
            assert answer.finished.prompt_tokens == len(story_tokens(prompt))


async def test_greedy_tokens_equal_generate_in_a_busy_batch(
    worker: Worker, references: list[list[int]]
) -> None:
    """Others open, sample, end and are cancelled around them."""
    async with decoding(worker) as sequences:
        answers = [await sequences.open(story_tokens(p), max_tokens=COUNT) for p in PROMPTS]
        others: list[Answer] = []
        for turn in range(40):
            others.append(await disturb(sequences, turn))
            if turn % 3 == 2:
                await sequences.cancel(others[turn - 1])
            await sequences.generated(answers[0], 4 * turn)
        await sequences.ended(*answers)
        for other in others:
            await sequences.cancel(other)
        await sequences.ended(*others)
    assert [answer.tokens for answer in answers] == references
    assert {other.reason for other in others} == {"LENGTH", "CANCELLED"}


async def disturb(sequences: Decoding, turn: int) -> Answer:
    """Open a sequence of some other length and kind."""
    prompt = story_tokens(PROMPTS[turn % 3] + " She saw a dog." * (turn % 11))
    return await sequences.open(
        prompt, max_tokens=1 + turn * 7 % 60, temperature=turn % 2, seed=turn, tenant=f"t{turn % 4}"
    )


async def test_the_text_is_that_of_the_tokens(worker: Worker, references: list[list[int]]) -> None:
    """Pieces of text arrive with their tokens and join to what the tokenizer decodes."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(stories(), "tokenizer.json")))
    async with decoding(worker) as sequences:
        answer = await sequences.answer(story_tokens(PROMPTS[0]), max_tokens=COUNT)
    assert len(answer.texts) == COUNT
    assert answer.text == tokenizer.decode(answer.tokens)
    assert "Lily" in answer.text
