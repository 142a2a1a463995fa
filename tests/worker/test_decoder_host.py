"""A decoder process that keeps far pages on the host: what it answers, holds, refuses and finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from longspan.worker.attention.policy import FULL, Kind, LayerPolicy
from longspan.worker.attention.policy_file import PolicyFile, write_policy
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
LONG = 2700
KV_BYTES = 6 << 20
HOST_BYTES = 4 << 20
LAYER_PAGE = 2 * 4 * 8 * 4 * PAGE
"""Keys and values of 4 kv heads of 8, in float32."""
HOST_PAGES = HOST_BYTES // (3 * LAYER_PAGE)
TEXT = "".join(f" Lily saw {n} dogs and {n * 7 % 50} cats in the park." for n in range(700))
QUESTION = story_tokens(" What did Lily see?")[1:]
FAR = LayerPolicy(kind=Kind.HYBRID, prefix_pages=1, window_pages=1, selected_pages=2, dense_pages=3)


@pytest.fixture(scope="module")
def document() -> list[int]:
    """More tokens than any test takes."""
    tokens = story_tokens(TEXT)
    assert len(tokens) > HOST_PAGES * PAGE
    return tokens


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that writes stories, for long texts."""
    return stretched_stories(Path(tmp_path_factory.mktemp("stories")), context_tokens=20_000)


def policy(folder: Path, layer: LayerPolicy) -> str:
    """A file in which three of five layers have this policy."""
    path = folder / f"far-{layer.on_host}.json"
    write_policy(path, PolicyFile("far", (FULL, FULL, layer, layer, layer)))
    return str(path)


@pytest.fixture(scope="module")
def worker(model: Path) -> Iterator[Worker]:
    """One worker for all tests of this module."""
    host = ("--kv-host-bytes", str(HOST_BYTES))
    far = policy(model, replace(FAR, on_host=True))
    with decoder(model, "--attention", far, *host, kv_bytes=KV_BYTES) as worker:
        yield worker


async def ask(sequences: Decoding, document: list[int], **options: Any) -> Answer:
    """A question behind a document, answered in 24 tokens."""
    return await sequences.answer(
        [*document, *QUESTION], task_start=len(document), max_tokens=24, **options
    )


async def test_it_answers_as_on_the_device(
    model: Path, worker: Worker, document: list[int]
) -> None:
    """In one piece, in pieces, found again, and behind tokens that another worker delivered."""
    text = document[:LONG]
    with decoder(model, "--attention", policy(model, FAR)) as other:
        async with decoding(other) as sequences:
            expected = await ask(sequences, text)
    async with decoding(worker) as sequences:
        names = [one.name for one in sequences.ready.attention]
        assert names == ["far", "full", "window"]
        whole = await ask(sequences, text, tenant="whole")
        again = await ask(sequences, text, tenant="whole")
        rest = await ask(sequences, text, delivered=whole.tokens[:9], tenant="whole")
        pieces = await sequences.open([], sealed=False, max_tokens=24, tenant="pieces")
        for start, end in pairwise([0, 1, 700, 1100, LONG]):
            await sequences.append(pieces, text[start:end])
        await sequences.append(pieces, QUESTION, seal=True, task_start=len(text))
        await sequences.ended(pieces)
        full = await ask(sequences, text, attention="full")
    assert whole.tokens == again.tokens == pieces.tokens == expected.tokens
    assert whole.tokens[9:] == rest.tokens
    assert whole.tokens != full.tokens, "this document shows the difference"
    assert again.finished.cached_tokens // PAGE == LONG // PAGE
    assert whole.finished.seen_share == expected.finished.seen_share < 1


async def test_it_keeps_on_the_device_what_the_formula_says(
    worker: Worker, document: list[int]
) -> None:
    """Two layers whole; of three the first page, two of the window, and a sixteenth of all."""
    async with decoding(worker) as sequences:
        end = (await ask(sequences, document[:LONG])).finished
    pages = -(-(LONG + len(QUESTION) + 24) // PAGE)
    held = pages * (2 * LAYER_PAGE + 3 * LAYER_PAGE // 16) + 3 * (1 + 1 + 1) * LAYER_PAGE
    assert abs(end.kv_bytes - held) <= 0.02 * held


async def test_what_full_attention_cannot_hold_is_read(worker: Worker, document: list[int]) -> None:
    """Until the host is full: then a document is refused as where frames run out."""
    most = HOST_PAGES * PAGE
    async with decoding(worker) as sequences:
        contexts = {one.name: one.max_tokens for one in sequences.ready.attention}
        assert contexts["full"] < most == contexts["far"] < contexts["window"]
        assert sequences.ready.kv_host_bytes == HOST_PAGES * 3 * LAYER_PAGE
        refused = await ask(sequences, document[:most])
        longest = await ask(sequences, document[: most - 100])
        again = await ask(sequences, document[: most - 100])
    assert refused.reason == "PROMPT_TOO_LONG"
    assert longest.tokens == again.tokens
    assert longest.reason == "LENGTH"


async def test_documents_that_do_not_fit_at_once_take_turns(
    worker: Worker, document: list[int]
) -> None:
    """They evict each other, and their answers are those that each had alone."""
    texts = [document[n : n + 2000] for n in (0, 300, 900)]
    assert HOST_PAGES * PAGE < 3 * 2000
    async with decoding(worker) as sequences:
        alone = [await ask(sequences, text, tenant="alone") for text in texts]
        together = [
            await sequences.open(
                [*text, *QUESTION], task_start=len(text), max_tokens=24, tenant="together"
            )
            for text in texts
        ]
        await sequences.ended(*together)
        while not (beat := await sequences.heartbeat()).HasField("resources"):
            pass
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    host = beat.resources.host
    assert 0 < host.bytes <= host.capacity_bytes == HOST_PAGES * 3 * LAYER_PAGE <= HOST_BYTES
    assert host.misses > 0, "what was chosen came from the host"
    assert host.hits > 0, "and some of it more than once"
