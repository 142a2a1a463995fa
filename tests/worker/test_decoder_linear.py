"""Linear far states of a real decoder process: what is shared, replayed, stored and counted."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from longspan.worker.attention.linear.hedgehog import Hedgehog
from longspan.worker.attention.linear.maps_file import MapsFile, format_maps
from longspan.worker.attention.policy import Far, Kind, LayerPolicy
from longspan.worker.attention.policy_file import PolicyFile, write_policy
from longspan.worker.models.weights import find_shards, fingerprint
from tests.worker.decoding import (
    Answer,
    Decoding,
    decoding,
    starting,
    story_tokens,
    stretched_stories,
)
from tests.worker.harness import Worker

PAGE = 256
LONG = 3000
KV_BYTES = 24 << 20
STOP_S = 20
TEXT = "".join(f" Anna has {n} balls and {n * 5 % 47} dolls in the box." for n in range(800))
QUESTION = story_tokens(" What does Anna have?")[1:]
OTHER = story_tokens(" The end of the story is that")[1:]
LINEAR = LayerPolicy(
    kind=Kind.HIERARCHICAL, prefix_pages=1, window_pages=1, selected_pages=2, far=Far.LINEAR
)
"""As ``hierarchical-linear``, from the first page on and in every layer."""


@torch.no_grad()
def strong_maps(heads: int, kv_heads: int, d: int, seed: int) -> Hedgehog:
    """Random ones that give far pages about as much weight as near ones."""
    numbers = torch.Generator().manual_seed(seed)
    found = Hedgehog(heads, kv_heads, d)
    for weight in found.parameters():
        weight.add_(torch.randn(weight.shape, generator=numbers) / 2)
    found.factor_bias.add_(2.0)
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that writes stories, for long texts."""
    folder = Path(tmp_path_factory.mktemp("stories"))
    return stretched_stories(folder, context_tokens=LONG + 1000)


@pytest.fixture(scope="module")
def maps(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of maps for it."""
    config = json.loads((model / "config.json").read_text())
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    sizes = heads, config["num_key_value_heads"], config["hidden_size"] // heads
    found = {layer: strong_maps(*sizes, seed=layer) for layer in range(layers)}
    path = Path(tmp_path_factory.mktemp("maps")) / "maps.safetensors"
    known = fingerprint(model / "config.json", find_shards(model))
    path.write_bytes(format_maps(MapsFile(known, found)))
    return path


@pytest.fixture(scope="module")
def flags(model: Path, maps: Path) -> tuple[str, ...]:
    """Of a worker that serves far states by default, in short documents."""
    layers = json.loads((model / "config.json").read_text())["num_hidden_layers"]
    path = maps.parent / "small.json"
    write_policy(path, PolicyFile("small", (LINEAR,) * layers))
    blind = replace(LINEAR, far=Far.NONE)
    write_policy(maps.parent / "blind.json", PolicyFile("blind", (blind,) * layers))
    return ("--attention", str(path), "--attention-maps", str(maps))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Where pages outlive the workers of this module."""
    folder = Path(tmp_path_factory.mktemp("kv"))
    return ("--kv-disk", str(folder), "--kv-disk-bytes", str(256 << 20), "--kv-disk-floor", "0")


@pytest.fixture(scope="module")
def worker(model: Path, flags: tuple[str, ...], disk: tuple[str, ...]) -> Iterator[Worker]:
    """One worker for all tests of this module; the last one ends it."""
    with starting(model, *flags, *disk, kv_bytes=KV_BYTES) as worker:
        worker.wait_ready()
        yield worker


@pytest.fixture(scope="module")
def document() -> list[int]:
    """More than a dozen pages."""
    tokens = story_tokens(TEXT)[:LONG]
    assert len(tokens) == LONG
    return tokens


async def ask(
    sequences: Decoding, document: list[int], question: list[int] = QUESTION, **options: Any
) -> Answer:
    """A question behind a document, answered in 16 tokens."""
    options = {"subject": "doc_1"} | options
    return await sequences.answer(
        [*document, *question], task_start=len(document), max_tokens=16, **options
    )


async def test_the_experiment_is_served_by_its_name_where_there_are_maps(
    worker: Worker, document: list[int]
) -> None:
    """Under its own policy a request sees less, holds more, and gets another answer."""
    async with decoding(worker, stores=True) as sequences:
        names = [one.name for one in sequences.ready.attention]
        small = await ask(sequences, document, tenant="seen")
        named = await ask(sequences, document[:800], attention="hierarchical-linear")
        full = await ask(sequences, document, attention="full", tenant="seen")
    assert names[0] == "small"
    assert names[-1] == "hierarchical-linear"
    assert named.finished.attention == "hierarchical-linear"
    assert small.finished.seen_share < full.finished.seen_share == 1.0
    assert small.tokens != full.tokens, "this document shows the difference"


async def test_a_document_may_arrive_in_any_pieces_and_serves_every_question(
    worker: Worker, document: list[int]
) -> None:
    """Pages that are found are those that would be computed; replayed tokens go on as written."""
    async with decoding(worker, stores=True) as sequences:
        whole = await ask(sequences, document, tenant="whole")
        pieces = await sequences.open(
            [], sealed=False, max_tokens=16, tenant="pieces", subject="doc_1"
        )
        for start, end in pairwise([0, 1, 300, 1100, 1111, 2600, LONG]):
            await sequences.append(pieces, document[start:end])
            position = (end - 1) // PAGE * PAGE - PAGE
            if position > 0:
                await sequences.read_to(pieces, position)
        await sequences.append(pieces, QUESTION, seal=True, task_start=LONG)
        await sequences.ended(pieces)
        found = await ask(sequences, document, OTHER, tenant="pieces")
        fresh = await ask(sequences, document, OTHER, tenant="fresh")
        rest = await ask(sequences, document, delivered=whole.tokens[:7], tenant="other")
    assert pieces.tokens == whole.tokens == whole.tokens[:7] + rest.tokens
    assert found.finished.cached_tokens // PAGE == LONG // PAGE
    assert fresh.finished.cached_tokens == 0
    assert found.tokens == fresh.tokens != whole.tokens


async def test_far_states_outlive_their_worker(
    worker: Worker, model: Path, document: list[int], flags: tuple[str, ...], disk: tuple[str, ...]
) -> None:
    """They are stored with their pages; without them the answer is another one."""
    async with decoding(worker, stores=True) as sequences:
        first = await ask(sequences, document, tenant="kept")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(STOP_S) == 0, worker.errors()
    with starting(model, *flags, *disk, kv_bytes=KV_BYTES) as again:
        again.wait_ready()
        async with decoding(again, stores=True) as sequences:
            second = await ask(sequences, document, tenant="kept")
            blind = str(Path(flags[1]).parent / "blind.json")
    with starting(model, "--attention", blind, kv_bytes=KV_BYTES) as other:
        other.wait_ready()
        async with decoding(other) as sequences:
            unseeing = await ask(sequences, document, tenant="kept")
    assert first.finished.cached_tokens == 0
    assert second.finished.cached_tokens >= LONG // 4
    assert second.tokens == first.tokens != unseeing.tokens
    assert unseeing.finished.kv_bytes < first.finished.kv_bytes, "far states are counted"
