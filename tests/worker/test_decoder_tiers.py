"""Decoder processes whose KV pages outlive them: on disk, under every policy."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from longspan.internal.v1 import worker_service_pb2 as pb
from tests.support.small_disk import fail, failing_disk, small_disk
from tests.worker.decoding import (
    Answer,
    Decoding,
    decoding,
    starting,
    story_tokens,
    stretched_stories,
)
from tests.worker.harness import Worker, opened

PAGE = 256
LONG = 3200
LONGER = 6700
STOP_S = 20
DISK = 256 << 20
KV_BYTES = 24 << 20
SMALL_KV_BYTES = 5 << 20
"""Not enough for two documents."""
FAR_KV_BYTES = 8 << 20
"""Enough for ``LONGER`` where layers give pages up; not where they keep all."""
TEXT = "".join(f" Tom saw {n} birds and {n * 3 % 41} fish at the lake." for n in range(800))
QUESTION = story_tokens(" What did Tom see?")[1:]
KEEPING = ["full", "hybrid"]
GIVING_UP = ["hybrid-host", "summary", "lean"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that writes stories, for long texts."""
    folder = Path(tmp_path_factory.mktemp("stories"))
    return stretched_stories(folder, context_tokens=LONGER + 1000)


@pytest.fixture(scope="module")
def longer() -> list[int]:
    """More tokens than whole pages of a small pool hold."""
    tokens = story_tokens(TEXT)[:LONGER]
    assert len(tokens) == LONGER
    return tokens


@pytest.fixture(scope="module")
def document(longer: list[int]) -> list[int]:
    """More than a window of tokens."""
    return longer[:LONG]


@contextmanager
def worker_on(disk: Path, model: Path, *flags: str, kv_bytes: int = KV_BYTES) -> Iterator[Worker]:
    """A decoder whose pages lie in that folder too."""
    tiers = ("--kv-disk", str(disk), "--kv-disk-bytes", str(DISK), "--kv-disk-floor", "0")
    with starting(model, *tiers, *flags, kv_bytes=kv_bytes) as worker:
        worker.wait_ready()
        yield worker


def stop(worker: Worker) -> None:
    """As a server stops it: what waits to be stored is stored."""
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(STOP_S) == 0, worker.errors()


async def ask(sequences: Decoding, document: list[int], **options: Any) -> Answer:
    """A question behind a document, answered in 16 tokens."""
    options = {"subject": "doc_1"} | options
    return await sequences.answer(
        [*document, *QUESTION], task_start=len(document), max_tokens=16, **options
    )


async def answered(worker: Worker, document: list[int], **options: Any) -> Answer:
    """The same, on a stream of its own."""
    async with decoding(worker, stores=True) as sequences:
        return await ask(sequences, document, **options)


@pytest.mark.parametrize("policy", KEEPING)
async def test_a_document_outlives_its_worker(
    policy: str, model: Path, document: list[int], tmp_path: Path
) -> None:
    flags = ("--attention", policy)
    with worker_on(tmp_path, model, *flags) as worker:
        first = await answered(worker, document)
        stop(worker)
    with worker_on(tmp_path, model, *flags) as worker:
        async with decoding(worker, stores=True) as sequences:
            second = await ask(sequences, document)
            stats = (await sequences.ask(inventory=pb.Inventory(request_id=1))).holdings.stats
    assert first.finished.cached_tokens == 0
    # All is found; how much of it is computed rather than loaded is a matter of speeds.
    assert sum(stats.misses.values()) == 0
    assert second.finished.cached_tokens >= LONG // 4
    assert second.tokens == first.tokens


@pytest.mark.parametrize("policy", GIVING_UP)
async def test_so_does_one_that_fits_since_layers_give_pages_up(
    policy: str, model: Path, longer: list[int], tmp_path: Path
) -> None:
    flags = ("--attention", policy)
    with worker_on(tmp_path, model, *flags, kv_bytes=FAR_KV_BYTES) as worker:
        async with decoding(worker, stores=True) as sequences:
            contexts = {one.name: one.max_tokens for one in sequences.ready.attention}
            first = await ask(sequences, longer)
        stop(worker)
    with worker_on(tmp_path, model, *flags, kv_bytes=FAR_KV_BYTES) as worker:
        async with decoding(worker, stores=True) as sequences:
            second = await ask(sequences, longer)
            stats = (await sequences.ask(inventory=pb.Inventory(request_id=1))).holdings.stats
    assert contexts["full"] < LONGER < contexts[policy]
    assert first.finished.cached_tokens == 0
    assert sum(stats.misses.values()) == 0
    # What is seen behind it comes at once, or nothing does.
    assert second.finished.cached_tokens == LONGER // PAGE * PAGE
    assert second.tokens == first.tokens


def flip_bits(files: Sequence[Path]) -> None:
    """One bit of each."""
    rng = random.Random(1)
    for path in files:
        data = bytearray(path.read_bytes())
        bit = rng.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)


def cut_short(files: Sequence[Path]) -> None:
    """As a disk that was full leaves them."""
    rng = random.Random(2)
    for path in files:
        os.truncate(path, rng.randrange(path.stat().st_size))


def swap(files: Sequence[Path]) -> None:
    """Each gets its neighbour's name."""
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(content)


async def test_damaged_files_are_computed_again(
    model: Path, document: list[int], tmp_path: Path
) -> None:
    with worker_on(tmp_path, model) as worker:
        first = await answered(worker, document)
        stop(worker)
    files = sorted(tmp_path.rglob("*.blob"))  # noqa: ASYNC240
    assert len(files) >= LONG // PAGE
    for place, damage in enumerate((flip_bits, cut_short, swap)):
        damage(files[place::3])
    with worker_on(tmp_path, model) as worker:
        async with decoding(worker, stores=True) as sequences:
            again = await ask(sequences, document)
            stats = (await sequences.ask(inventory=pb.Inventory(request_id=1))).holdings.stats
    assert again.tokens == first.tokens
    assert again.finished.cached_tokens == 0
    assert sum(stats.misses.values()) > 0


async def test_other_weights_under_the_same_name_find_nothing(
    model: Path, document: list[int], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    with worker_on(tmp_path / "disk", folder) as worker:
        first = await answered(worker, document)
        stop(worker)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].flip(0).contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with worker_on(tmp_path / "disk", folder) as worker:
        second = await answered(worker, document)
    assert second.finished.cached_tokens == 0
    assert second.tokens != first.tokens


async def test_pages_of_another_type_or_policy_are_not_taken(
    model: Path, document: list[int], tmp_path: Path
) -> None:
    with worker_on(tmp_path, model) as worker:
        await answered(worker, document)
        windowed = await answered(worker, document, attention="window")
        stranger = await answered(worker, document, tenant="other")
        stop(worker)
    with worker_on(tmp_path, model, "--dtype", "bfloat16") as worker:
        lower = await answered(worker, document)
    assert windowed.finished.cached_tokens == 0
    assert stranger.finished.cached_tokens == 0
    assert lower.finished.cached_tokens == 0


async def test_a_full_disk_costs_no_answer(
    model: Path, document: list[int], tmp_path: Path
) -> None:
    with small_disk(tmp_path, "2m") as disk, worker_on(disk, model) as worker:
        first = await answered(worker, document)
        again = await answered(worker, document)
        assert again.tokens == first.tokens
        stop(worker)
        assert sum(path.stat().st_size for path in disk.rglob("*")) <= 2 << 20


async def test_a_disk_that_becomes_read_only_costs_no_answer(
    model: Path, document: list[int], tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    with (
        failing_disk(tmp_path / "image", tmp_path / "disk") as disk,
        worker_on(disk, model, kv_bytes=SMALL_KV_BYTES) as worker,
    ):
        first = await answered(worker, document)
        await answered(worker, document, tenant="other")
        fail(disk)
        for _ in range(2):
            again = await answered(worker, document)
            other = await answered(worker, document, tenant="other")
            assert again.tokens == other.tokens == first.tokens
        stop(worker)


async def test_a_killed_worker_leaves_what_it_had_computed(
    model: Path, document: list[int], tmp_path: Path
) -> None:
    pages = 10
    with worker_on(tmp_path, model) as worker:
        async with opened(worker) as (stream, ready):
            sequences = Decoding(stream, ready)
            await sequences.answer(document[: pages * PAGE], max_tokens=0, subject="upl_1")
            stored = 0
            while stored < pages:
                request = pb.Inventory(request_id=7)
                (holding,) = (await sequences.ask(inventory=request)).holdings.holdings
                stored = holding.disk_pages
            worker.process.kill()
            worker.process.wait()
    with worker_on(tmp_path, model) as worker:
        answer = await answered(worker, document)
    assert answer.finished.cached_tokens >= 9 * PAGE


async def test_who_asks_is_told_what_lies_where(
    model: Path, document: list[int], tmp_path: Path
) -> None:
    with worker_on(tmp_path, model, "--kv-ram-bytes", str(64 << 20)) as worker:
        async with decoding(worker, stores=True) as sequences:
            answer = await sequences.open(
                document[: 10 * PAGE], sealed=False, subject="upl_1", max_tokens=4
            )
            await sequences.read_to(answer, 9 * PAGE)
            rename = pb.Rename(job_id=answer.job_id, subject="doc_1")
            await sequences.stream.call.write(pb.ExecuteRequest(rename=rename))
            await sequences.append(answer, document[10 * PAGE : 12 * PAGE], seal=True)
            await sequences.ended(answer)
            await ask(sequences, document[: 12 * PAGE])
            await ask(sequences, document[: 6 * PAGE], tenant="other", subject="doc_2")
            holdings = pb.Holdings()
            while sum(one.disk_pages for one in holdings.holdings) < 18:
                request = pb.Inventory(request_id=3, tenant="")
                holdings = (await sequences.ask(inventory=request)).holdings
            assert holdings.request_id == 3
            found = {(one.tenant, one.subject): one for one in holdings.holdings}
            assert set(found) == {("tenant", "doc_1"), ("other", "doc_2")}
            mine = found["tenant", "doc_1"]
            assert mine.pool_pages >= 12
            assert mine.ram_pages >= 12
            assert mine.disk_pages >= 12
            assert mine.hits >= 11
            one = (
                await sequences.ask(inventory=pb.Inventory(request_id=4, tenant="other"))
            ).holdings
            assert {h.subject for h in one.holdings} == {"doc_2"}
            named = pb.Inventory(request_id=9, tenant="tenant", subjects=["doc_1", "doc_2"])
            [told] = (await sequences.ask(inventory=named)).holdings.holdings
            told.age_s = mine.age_s
            assert told == mine
            verified = (await sequences.ask(verify=pb.Verify(request_id=5))).verified
            assert (verified.checked, verified.damaged) == (holdings.stats.disk_pages, 0)
            forget = pb.Forget(request_id=6, tenant="tenant", subject="doc_1")
            gone = (await sequences.ask(forget=forget)).forgotten
            assert min(gone.pool_pages, gone.disk_pages) >= 12
            left = (await sequences.ask(inventory=pb.Inventory(request_id=8))).holdings
            assert {h.subject for h in left.holdings} == {"doc_2"}
            again = await ask(sequences, document[: 12 * PAGE])
            assert again.finished.cached_tokens == 0


POISON = 492
"""A token that neither document nor question has, nor the worker's own check."""


@pytest.fixture(scope="module")
def broken(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model; what it knows of one token is no number."""
    folder = Path(tmp_path_factory.mktemp("broken")) / "model"
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    # The head has weights of its own, or no logit would be a number.
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.embed_tokens.weight"][POISON] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return folder


async def test_pages_that_are_no_numbers_are_not_kept(
    broken: Path, document: list[int], tmp_path: Path
) -> None:
    """Whatever came of them would be found again, in memory and on disk."""
    assert POISON not in document + QUESTION
    ill = [*document[: 2 * PAGE], POISON, *document[2 * PAGE : 4 * PAGE]]
    with worker_on(tmp_path, broken) as worker:
        async with decoding(worker, stores=True) as sequences:
            well = await ask(sequences, document[: 3 * PAGE], subject="doc_well")
            assert well.finished.output_tokens > 0
            answer = await sequences.open(
                [*ill, *QUESTION], sealed=True, subject="doc_ill", max_tokens=4
            )
            await sequences.ended(answer)
            assert answer.reason == "NOT_FINITE"
            found = {"doc_ill"}
            while "doc_ill" in found:
                request = pb.Inventory(request_id=9)
                holdings = (await sequences.ask(inventory=request)).holdings.holdings
                found = {one.subject for one in holdings}
            assert "doc_well" in found
