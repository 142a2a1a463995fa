"""How a prompt arrives makes no difference, and what was read once is not read again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.worker.decoding import (
    Answer,
    Decoding,
    decoder,
    decoding,
    story_tokens,
    stretched_stories,
)
from tests.worker.harness import Worker

PAGE = 256
DOCUMENT = "".join(f" Lily saw {n} dogs and {n * 7 % 50} cats in the park." for n in range(150))
CHUNKINGS = 30
TOGETHER = 10


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker for all tests of this module; its model has a longer context than published."""
    folder = stretched_stories(Path(tmp_path_factory.mktemp("stories")), context_tokens=4096)
    with decoder(folder) as worker:
        yield worker


def chunking(tokens: list[int], chance: random.Random) -> list[list[int]]:
    """The tokens in pieces, some of them empty; page ends are favourite cuts."""
    count = chance.choice([0, 1, 2, 5, 20])
    cuts = [chance.choice([0, len(tokens), PAGE - 1, PAGE, PAGE + 1]) for _ in range(count // 2)]
    cuts += [chance.randrange(len(tokens) + 1) for _ in range(count - len(cuts))]
    bounds = [0, *sorted(cuts), len(tokens)]
    return [tokens[start:end] for start, end in pairwise(bounds)]


async def pause(sequences: Decoding, chance: random.Random) -> None:
    """Let the worker get on, or not."""
    match chance.randrange(4):
        case 0:
            await asyncio.sleep(0.01)
        case 1:
            await sequences.read()


async def test_any_chunking_of_a_prompt_gives_the_same_answer(worker: Worker) -> None:
    """Cut anywhere, with pauses, among others, with pages to share and without."""
    prompt = story_tokens(DOCUMENT)[: 2 * PAGE + 40]
    chance = random.Random(7)
    async with decoding(worker) as sequences:
        whole = await sequences.answer(prompt, max_tokens=40)
        answers = []
        for _ in range(CHUNKINGS // TOGETHER):
            together = [chunking(prompt, chance) for _ in range(TOGETHER)]
            answers += await send(sequences, together, chance)
    assert [answer.tokens for answer in answers] == [whole.tokens] * CHUNKINGS
    assert {answer.text for answer in answers} == {whole.text}
    assert {answer.finished.prompt_tokens for answer in answers} == {len(prompt)}


async def send(
    sequences: Decoding, prompts: list[list[list[int]]], chance: random.Random
) -> list[Answer]:
    """Send prompts side by side, a piece at a time, and read all answers."""
    answers = [
        await sequences.open(
            pieces[0], sealed=len(pieces) == 1, max_tokens=40, tenant=f"{chance.random()}"[:3]
        )
        for pieces in prompts
    ]
    turns = [n for n, pieces in enumerate(prompts) for _ in pieces[1:]]
    chance.shuffle(turns)
    sent = [1] * len(prompts)
    for turn in turns:
        pieces = prompts[turn]
        last = sent[turn] == len(pieces) - 1
        await sequences.append(answers[turn], pieces[sent[turn]], seal=last)
        sent[turn] += 1
        await pause(sequences, chance)
    await sequences.ended(*answers)
    return answers


async def test_an_open_prompt_is_read_while_it_arrives(worker: Worker) -> None:
    """All but its last token, which is kept back until it is known to be the last."""
    prompt = story_tokens(DOCUMENT)[:1000]
    async with decoding(worker) as sequences:
        answer = await sequences.open(prompt[:600], sealed=False, tenant="reader")
        await sequences.read_to(answer, 599)
        await sequences.append(answer, prompt[600:])
        await sequences.read_to(answer, 999)
        assert (answer.tokens, answer.prefilled[-1]) == ([], (999, 0))
        await sequences.append(answer, [], seal=True)
        await sequences.ended(answer)
    assert (answer.prefilled[-1], len(answer.tokens)) == ((1000, 0), 32)


async def test_the_second_question_about_a_document_reads_only_itself(worker: Worker) -> None:
    """It finds the document's whole pages; the answer is the same as without them."""
    document = story_tokens(DOCUMENT)[:3000]
    questions = [story_tokens(text) for text in (" What did Lily see?", " Tom said, ")]
    async with decoding(worker) as sequences:
        first = await sequences.answer(document + questions[0], tenant="a")
        second = await sequences.answer(document + questions[1], tenant="a")
        again = await sequences.answer(document + questions[0], tenant="a")
        stranger = await sequences.answer(document + questions[1], tenant="b")
    whole_pages = len(document) // PAGE * PAGE
    assert first.finished.cached_tokens == stranger.finished.cached_tokens == 0
    assert second.finished.cached_tokens == whole_pages
    assert second.prefilled[0][1] == whole_pages
    assert again.finished.cached_tokens == (len(document) + len(questions[0]) - 1) // PAGE * PAGE
    assert second.text == stranger.text
    assert again.text == first.text
    assert first.text != second.text


async def test_questions_at_the_same_time_read_a_document_once(worker: Worker) -> None:
    """Pages are shared as soon as they are computed, not only when their sequence has ended."""
    document = story_tokens(DOCUMENT)[:2500]
    async with decoding(worker) as sequences:
        alone = [
            await sequences.answer([*document, 400 + n], max_tokens=12, tenant=f"alone {n}")
            for n in range(4)
        ]
        together = [
            await sequences.open([*document, 400 + n], max_tokens=12, tenant="together")
            for n in range(4)
        ]
        await sequences.ended(*together)
    assert [one.text for one in together] == [one.text for one in alone]
    computed = sum(len(document) + 1 - one.finished.cached_tokens for one in together)
    assert computed <= len(document) + 4 * PAGE
