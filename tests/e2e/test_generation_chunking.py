"""However a document arrives, its answer is the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

from longspan.client import Answer, AsyncClient, Generation, Prompt
from longspan.server.tasks import task as asked
from tests.e2e.real_decoders import (
    STORY,
    Reference,
    answering,
    in_pieces,
    slowly,
    stories_folder,
    streaming_decoder,
)
from tests.e2e.workers import quiet_log
from tests.support.data import EXAMPLES
from tests.support.serving import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_TOKENS = 40
WORDS = "Then Tom said"
LONG_BYTES = 6_000
# Characters of two to four bytes, which small pieces cut in the middle.
TEXT = f"{STORY}“Café” — naïve, 你好 🦜!\n\n{STORY}"


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server with the decoder that writes stories."""
    folder = tmp_path_factory.mktemp("chunking")
    async with answering(folder, stories_folder()) as serving:
        yield serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reader(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server with a random decoder that reads thousands of tokens, while they arrive."""
    folder = tmp_path_factory.mktemp("reading")
    model = streaming_decoder(folder / "model", context_tokens=8192)
    async with answering(folder / "data", model) as serving:
        yield serving


Sizes = Callable[[random.Random], int]
CHUNKINGS: dict[str, Sizes] = {
    "one byte": lambda rng: 1,
    "seven bytes": lambda rng: 7,
    "all at once": lambda rng: 64 << 10,
    "random": lambda rng: rng.choice((1, 2, 3, rng.randint(1, 50), rng.randint(1, 700))),
}


async def _answer(
    serving: Serving, data: bytes, task: Prompt, sizes: Sizes, pause_s: float
) -> Answer:
    """Send ``data`` in pieces of these sizes; every sixth or so is late by up to ``pause_s``."""
    rng = random.Random(11)
    pieces = in_pieces(data, lambda: sizes(rng))
    async with (
        AsyncClient(serving.target) as client,
        client.analyze(slowly(pieces, rng, pause_s), task) as stream,
    ):
        return await stream.result()


def _told(answer: Answer) -> tuple[object, ...]:
    """All that may not depend on the chunking."""
    usage = answer.completed.usage
    counts = (usage.document_tokens, usage.task_tokens, usage.output_tokens, usage.retries)
    document = answer.completed.documents[0]
    identity = (document.document_id, document.sha256, document.size_chars, document.tokens)
    return answer.text, answer.completed.finish_reason, counts, identity


@pytest.mark.parametrize("name", CHUNKINGS)
async def test_any_chunking_of_an_upload_gives_the_answer_of_the_whole(
    stories: Serving, name: str
) -> None:
    """Text and counts are those that transformers gives for the whole text at once."""
    task = Prompt(WORDS, generation=Generation(max_tokens=MAX_TOKENS))
    whole = Reference(stories_folder())
    expected = await asyncio.to_thread(whole.greedy, asked.Prompt(WORDS), TEXT, MAX_TOKENS)
    answer = await _answer(stories, TEXT.encode(), task, CHUNKINGS[name], 0.005)
    usage = answer.completed.usage
    assert answer.text == expected.text
    assert usage.document_tokens == answer.completed.documents[0].tokens
    assert usage.document_tokens == expected.document_tokens
    assert (usage.task_tokens, usage.output_tokens) == (
        expected.task_tokens,
        expected.output_tokens,
    )


async def test_pauses_let_the_decoder_read_ahead_and_change_nothing(reader: Serving) -> None:
    """A document of many pages, prefilled in as many ways as it arrives, is answered alike."""
    data = (EXAMPLES / "services-agreement.md").read_bytes()[:LONG_BYTES]
    task = Prompt("Go on.", generation=Generation(max_tokens=20, regex="(yes|no|perhaps){2}"))
    sizes: list[tuple[Sizes, float]] = [
        (lambda rng: 64 << 10, 0.0),
        (lambda rng: 61, 0.02),
        (lambda rng: rng.randint(1, 900), 0.2),
    ]
    answers = [await _answer(reader, data, task, *how) for how in sizes]
    assert len({_told(answer) for answer in answers}) == 1
    assert answers[0].completed.usage.document_tokens > 1024
    assert answers[0].completed.usage.cached_tokens == 0
    assert all(answer.completed.usage.cached_tokens > 0 for answer in answers[1:])
