"""A decoder process: the tokens are those of transformers, and bad input fails alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from longspan.internal.v1 import worker_service_pb2 as pb
from tests.worker.decoding import (
    Answer,
    Decoding,
    decoding,
    packed,
    starting,
    stories,
    story_tokens,
)
from tests.worker.harness import SHORT, Worker, opened

PROMPTS = (
    "Once upon a time, there was a little girl named Lily.",
    "Tom had a big red ball. He",
    "The cat and the dog",
)
COUNT = 200
BAD_OPENS: list[tuple[str, dict[str, Any]]] = [
    ("BAD_GRAMMAR", {"grammar": pb.Grammar(json_schema="{")}),
    ("BAD_GRAMMAR", {"grammar": pb.Grammar(json_schema='{"type": "nonsense"}')}),
    ("BAD_GRAMMAR", {"grammar": pb.Grammar(json_schema='{"$ref": "#/absent"}')}),
    ("BAD_GRAMMAR", {"grammar": pb.Grammar(regex="(")}),
    ("BAD_GRAMMAR", {"grammar": pb.Grammar(regex="(", begins_after=".")}),
    ("BAD_GRAMMAR", {"grammar": pb.Grammar(regex="[0-9]+"), "delivered": [403]}),
    ("BAD_REQUEST", {"grammar": pb.Grammar()}),
    ("BAD_REQUEST", {"temperature": -0.1}),
    ("BAD_REQUEST", {"temperature": float("nan")}),
    ("BAD_REQUEST", {"top_p": 0}),
    ("BAD_REQUEST", {"max_tokens": -1}),
    ("BAD_REQUEST", {"stop_texts": [""]}),
    ("BAD_REQUEST", {"prompt": [1, 512]}),
    ("BAD_REQUEST", {"prompt": [1, 2**32 - 1]}),
    ("BAD_REQUEST", {"delivered": [512]}),
    ("PROMPT_TOO_LONG", {"prompt": [1] * 512}),
    ("PROMPT_TOO_LONG", {"prompt": [1] * 2000, "sealed": False}),
    ("EMPTY_PROMPT", {"prompt": []}),
]


@pytest.fixture(scope="module")
def process() -> Iterator[Worker]:
    """The one worker of this module, while it starts."""
    with starting(stories()) as worker:
        yield worker


@pytest.fixture(scope="module")
def references(process: Worker) -> list[list[int]]:
    """What transformers generates for the prompts; computed while the worker starts."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(stories(), dtype=torch.float32)
    return [generate(model, story_tokens(prompt)) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def worker(process: Worker, references: list[list[int]]) -> Worker:
    """One worker for all tests of this module."""
    process.wait_ready()
    return process


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


@pytest.mark.parametrize(("reason", "options"), BAD_OPENS)
async def test_a_bad_open_fails_and_the_worker_lives_on(
    worker: Worker, reason: str, options: dict[str, Any]
) -> None:
    """One Failed with a reason, whatever the client still sends; the next sequence runs."""
    prompt = story_tokens(PROMPTS[1])
    async with decoding(worker) as sequences:
        other = await sequences.open(prompt, max_tokens=20)
        bad = await sequences.open(**{"prompt": prompt} | options)
        await sequences.append(bad, prompt, seal=True)
        await sequences.cancel(bad)
        await sequences.ended(bad, other)
        after = await sequences.answer(prompt, max_tokens=20)
    assert bad.reason == reason
    assert (bad.tokens, bad.prefilled) == ([], [])
    assert other.tokens == after.tokens


@pytest.mark.parametrize(
    ("reason", "prompt", "sealed", "appended"),
    [
        ("BAD_REQUEST", [1, 403], False, [512]),
        ("PROMPT_TOO_LONG", [1, 403], False, [403] * 511),
        ("PROMPT_TOO_LONG", [403] * 500, False, [403] * 12),
        ("PROMPT_SEALED", [1, 403], True, [403]),
        ("EMPTY_PROMPT", [], False, []),
    ],
)
async def test_a_bad_append_fails_its_sequence_alone(
    worker: Worker, reason: str, prompt: list[int], sealed: bool, appended: list[int]
) -> None:
    """Also while the sequence runs; what comes later for it is ignored."""
    async with decoding(worker) as sequences:
        bad = await sequences.open(prompt, sealed=sealed, max_tokens=400)
        if sealed:
            await sequences.generated(bad, 2)
        await sequences.append(bad, appended, seal=True)
        await sequences.append(bad, [403], seal=True)
        await sequences.ended(bad)
        after = await sequences.answer(story_tokens(PROMPTS[1]))
    assert bad.reason == reason
    assert len(after.tokens) == 32


@pytest.mark.parametrize("field", ["prompt", "delivered"])
async def test_half_a_token_is_refused(worker: Worker, field: str) -> None:
    """Ids are four bytes each."""
    async with opened(worker) as (stream, _):
        fields: dict[str, Any] = {"prompt": packed([1, 403]), field: b"\1\0\0\0\2"}
        sampling = pb.Sampling(max_tokens=3, top_p=1)
        command = pb.Open(job_id=1, sealed=True, sampling=sampling, **fields)
        await stream.call.write(pb.ExecuteRequest(open=command))
        failed = (await stream.next_end()).failed
        assert (failed.job_id, failed.reason) == (1, "BAD_REQUEST")
        assert failed.message


async def test_a_duplicate_fails_and_the_first_sequence_goes_on(worker: Worker) -> None:
    """The id is in use until the sequence has ended."""
    prompt = story_tokens(PROMPTS[1])
    async with opened(worker) as (stream, _):
        sampling = pb.Sampling(max_tokens=3, top_p=1)
        command = pb.Open(job_id=1, prompt=packed(prompt[:-1]), sampling=sampling)
        append = pb.Append(job_id=1, tokens=packed(prompt[-1:]), seal=True)
        for request in (pb.ExecuteRequest(open=command), pb.ExecuteRequest(open=command)):
            await stream.call.write(request)
        events = [await stream.next_end()]
        await stream.call.write(pb.ExecuteRequest(append=append))
        while events[-1].WhichOneof("kind") != "finished":
            events.append(await stream.next_end())
    failures = [event.failed.reason for event in events if event.WhichOneof("kind") == "failed"]
    assert failures == ["DUPLICATE_JOB"]
    assert events[-1].finished.output_tokens == 3


async def test_commands_of_no_sequence_or_another_role(worker: Worker) -> None:
    """A decoder refuses to encode, and ignores what an ended sequence is still sent."""
    async with decoding(worker) as sequences:
        stray = Answer(77)
        await sequences.append(stray, [403], seal=True)
        await sequences.append(stray, [512], seal=True)
        await sequences.cancel(stray)
        await sequences.stream.encode(78, [SHORT])
        failed = (await sequences.stream.next_end()).failed
        assert (failed.job_id, failed.reason) == (78, "NO_ENCODER")
        assert len((await sequences.answer([1, 403])).tokens) == 32
