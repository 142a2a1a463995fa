"""Cancel, deadline and a broken stream end a sequence in every phase, within one step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from longspan.internal.v1 import worker_service_pb2 as pb
from tests.worker.decoders import tiny_decoder
from tests.worker.decoding import Answer, Decoding, decoder, decoding
from tests.worker.harness import Worker, opened

CONTEXT = 16_384
LONG = [5 + n * 31 % 370 for n in range(CONTEXT - 100)]
SHORT = LONG[:40]
FOR_EVER = CONTEXT // 2
ENDLESS = pb.Grammar(regex=f"[a-z]{{{FOR_EVER}}}")
"""Keeps a random model from its stop tokens."""
DEADLINE_MS = 600
STEPS = 2
"""The one that runs when a command is sent, and the one that may have begun before it came."""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker for all tests of this module; its prefill steps take a good while."""
    folder = tiny_decoder(
        "llama",
        tmp_path_factory.mktemp("model"),
        context_tokens=CONTEXT,
        hidden_size=512,
        intermediate_size=2048,
    )
    with decoder(folder) as worker:
        yield worker


async def idle(sequences: Decoding, **options: Any) -> Answer:
    """Open, everything that came is read."""
    answer = await sequences.open(SHORT, sealed=False, **options)
    await sequences.read_to(answer, len(SHORT) - 1)
    return answer


async def waiting(sequences: Decoding, **options: Any) -> Answer:
    """Complete, behind the running step of another sequence."""
    other = await sequences.open(LONG, tenant="other")
    await sequences.read_to(other, 1)
    return await sequences.open(LONG, **options)


async def prefilling(sequences: Decoding, **options: Any) -> Answer:
    """Read in part."""
    answer = await sequences.open(LONG, **options)
    await sequences.read_to(answer, 1)
    assert answer.prefilled[-1][0] < len(LONG) // 2
    return answer


async def decoding_on(sequences: Decoding, **options: Any) -> Answer:
    """In the middle of its answer."""
    answer = await sequences.open(SHORT, max_tokens=FOR_EVER, grammar=ENDLESS, **options)
    await sequences.generated(answer, 5)
    return answer


Phase = Callable[..., Awaitable[Answer]]
PHASES = (idle, waiting, prefilling, decoding_on)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancelled_sequence_ends_with_the_running_step(
    worker: Worker, phase: Phase
) -> None:
    """Nothing of it runs after that, and its pages are free."""
    async with decoding(worker) as sequences:
        answer = await phase(sequences, tenant=f"cancelled while {phase.__name__}")
        step = (await sequences.heartbeat()).step
        for one in reversed(sequences.answers.values()):
            await sequences.cancel(one)
        await sequences.ended(*sequences.answers.values())
        beat = await sequences.heartbeat()
    assert answer.reason == "CANCELLED"
    assert (beat.jobs, beat.used_pages, list(beat.running)) == (0, 0, [])
    if phase is not decoding_on:  # its steps are shorter than the way of a command
        assert beat.step - step <= STEPS


@pytest.mark.parametrize("phase", PHASES)
async def test_a_sequence_fails_when_its_deadline_passes(worker: Worker, phase: Phase) -> None:
    """With a Failed of its own, and nothing of it is left."""
    tenant = f"late while {phase.__name__}"
    async with decoding(worker) as sequences:
        deadline_ms = 1 if phase is waiting else DEADLINE_MS
        answer = await phase(sequences, tenant=tenant, deadline_ms=deadline_ms)
        await sequences.ended(answer)
        for one in sequences.answers.values():
            await sequences.cancel(one)
        await sequences.ended(*sequences.answers.values())
        beat = await sequences.heartbeat()
    assert answer.reason == "DEADLINE_EXCEEDED"
    assert (beat.jobs, beat.used_pages, list(beat.running)) == (0, 0, [])
    assert len(answer.tokens) < FOR_EVER
    assert bool(answer.tokens) == (phase is decoding_on)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_broken_stream_leaves_nothing(worker: Worker, phase: Phase) -> None:
    """The step that runs ends into nothing; the next stream finds every page free."""
    async with opened(worker) as (stream, ready):
        await phase(Decoding(stream, ready), tenant=f"broken while {phase.__name__}")
    async with decoding(worker) as sequences:
        first = beat = await sequences.heartbeat()
        while beat.used_pages:
            beat = await sequences.heartbeat()
        assert (first.jobs, beat.jobs) == (0, 0)
        assert beat.step - first.step <= STEPS
        assert len((await sequences.answer(SHORT, max_tokens=3)).tokens) == 3


async def test_others_go_on_when_one_is_cancelled(worker: Worker) -> None:
    """Cancelling in the middle of a shared step costs nobody else a token."""
    async with decoding(worker) as sequences:
        alone = await sequences.answer(SHORT, max_tokens=40)
        other = await sequences.open(SHORT, max_tokens=40)
        victims = [
            await sequences.open(SHORT[n:], max_tokens=FOR_EVER, grammar=ENDLESS)
            for n in range(1, 6)
        ]
        for victim in victims:
            await sequences.generated(victim, 2)
            await sequences.cancel(victim)
        await sequences.ended(other, *victims)
    assert other.tokens == alone.tokens
    assert {victim.reason for victim in victims} == {"CANCELLED"}
