"""Decoder workers are killed in the middle of answers; the text is that of an undisturbed run."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import DocumentQuarantined
from longspan.server.queue.output import AttentionUsage
from longspan.server.queue.request import RequestInfo
from longspan.server.queue.sequences import SequenceDispatcher
from tests.pool.harness import send_signal, until
from tests.pool.stories import heard, ids, request, stories, tell, telling
from tests.pool.story_worker import kv_bytes, numbers, story
from tests.support.seeds import seeded

POISON = 666_666
SEQUENCES = 50
LANES = 8


async def _grow_and_tell(
    dispatcher: SequenceDispatcher, number: int, info: RequestInfo, rng: random.Random
) -> None:
    """One sequence whose prompt arrives in pieces, compared with an undisturbed one."""
    prompt = [number, *range(3, rng.randint(4, 300))]
    sampling = pb.Sampling(max_tokens=60, seed=number)
    async with dispatcher.open(info, sampling, ids(prompt[0])) as sequence:
        at = 1
        while at < len(prompt):
            size = rng.randint(1, 100)
            sequence.append(ids(*prompt[at : at + size]))
            at += size
            await asyncio.sleep(rng.uniform(0.0, 0.02))
        sequence.seal(ids())
        text = await heard(sequence)
        assert text == story(prompt, seed=number, max_tokens=60)
        tokens = numbers(sequence.output.ids)
        assert sequence.output.tokens == len(tokens) <= 60
        assert text.split() == [str(token) for token in tokens]


async def test_fifty_stories_are_told_alike_though_their_worker_is_killed_at_random() -> None:
    """No token is lost, repeated or changed by SIGKILL at any moment; retries are counted."""
    rng = seeded()
    config = stories("--step-s", "0.002", "--chunk", "40")
    async with telling(config) as dispatcher:
        lanes = asyncio.Semaphore(LANES)
        infos = [request(f"document {number}") for number in range(SEQUENCES)]

        async def one(number: int) -> None:
            async with lanes:
                await _grow_and_tell(dispatcher, number, infos[number], rng)

        tasks = [asyncio.create_task(one(number)) for number in range(SEQUENCES)]
        kills = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(rng.uniform(0.15, 0.4))
            if dispatcher.ready and not any(dispatcher.probation()):
                send_signal(dispatcher, signal.SIGKILL)
                kills += 1
                await until(lambda: not dispatcher.ready)
                await until(lambda: dispatcher.ready)
        await asyncio.gather(*tasks)
        assert kills >= 2
        assert sum(info.stats.retries for info in infos) >= kills - 1


async def test_a_death_while_the_prompt_grows_replays_it_from_the_start() -> None:
    """A prompt half sent to a worker that dies is sent whole to the next one."""
    async with telling(stories("--chunk", "10")) as dispatcher:
        info = request()
        async with dispatcher.open(info, pb.Sampling(max_tokens=30), ids(1, 2)) as sequence:
            sequence.append(ids(*range(3, 50)))
            await until(lambda: sequence.prefilled == 48)
            send_signal(dispatcher, signal.SIGKILL)
            await until(lambda: info.stats.retries == 1)
            sequence.append(ids(50, 51))
            assert sequence.prefilled == 48, "what was told does not shrink"
            sequence.seal(ids(52))
            assert await heard(sequence) == story(range(1, 53), max_tokens=30)


async def test_a_replay_is_told_the_same_policy_and_the_same_place_of_the_task() -> None:
    """The next worker gets the sealed prompt at once, and computes it alike."""
    async with telling(stories("--step-s", "0.01")) as dispatcher:
        info, sampling = request(), pb.Sampling(max_tokens=40)
        async with dispatcher.open(info, sampling, ids(1, 2), attention="hybrid") as sequence:
            sequence.append(ids(*range(3, 50)))
            sequence.seal(ids(50, 51, 52))
            await until(lambda: sequence.output.tokens > 2)
            send_signal(dispatcher, signal.SIGKILL)
            assert await heard(sequence) == story(range(1, 53), max_tokens=40)
            assert info.stats.retries == 1
            assert sequence.output.finish.attention == AttentionUsage(
                policy="hybrid", kv_bytes=kv_bytes(52, 49), seen_share=0.5
            )


async def test_an_idle_suspect_does_not_hold_up_others() -> None:
    """A suspect that waits for more of its prompt is cleared where the first worker had got."""
    async with telling(stories("--announce", "--chunk", "10")) as dispatcher:
        info = request("slow upload")
        async with dispatcher.open(info, pb.Sampling(max_tokens=9), ids(1, 2)) as waiting:
            waiting.append(ids(*range(30)))
            await until(lambda: waiting.prefilled == 31)
            send_signal(dispatcher, signal.SIGKILL)
            await until(lambda: info.stats.retries == 1)
            assert await tell(dispatcher, [4, 5, 6]) == story([4, 5, 6], max_tokens=50)


async def test_one_of_two_workers_dies_and_only_its_sequences_are_replayed() -> None:
    """The survivor's sequences go on; those of the dead continue there or on a new worker."""
    async with telling(stories("--step-s", "0.005", workers=2)) as dispatcher:
        await until(lambda: len(dispatcher.stats().in_flight) == 2)
        infos = [request(f"document {number}") for number in range(6)]
        tasks = [
            asyncio.create_task(tell(dispatcher, [number, 9], info=info))
            for number, info in enumerate(infos)
        ]
        await asyncio.sleep(0.1)
        victim, survivor = dispatcher.pids
        os.kill(victim, signal.SIGKILL)
        texts = await asyncio.gather(*tasks)
        assert texts == [story([number, 9], max_tokens=50) for number in range(6)]
        assert sum(info.stats.retries for info in infos) == 3
        assert survivor in dispatcher.pids


async def test_a_poisonous_document_is_quarantined_and_its_neighbours_complete() -> None:
    """Two deaths at the same place condemn the document, and nobody else."""
    config = stories("--poison", str(POISON), "--announce", "--chunk", "16")
    async with telling(config) as dispatcher:
        prompt = [*range(40), POISON, *range(40)]
        guilty = asyncio.create_task(tell(dispatcher, prompt, info=request("guilty")))
        others = [
            asyncio.create_task(tell(dispatcher, [number, 1], info=request(f"d{number}")))
            for number in range(5)
        ]
        with pytest.raises(DocumentQuarantined):
            await guilty
        texts = await asyncio.gather(*others)
        assert texts == [story([number, 1], max_tokens=50) for number in range(5)]
        assert dispatcher.stats().restarts <= 2
        with pytest.raises(DocumentQuarantined):
            await tell(dispatcher, [1], info=request("guilty"))


async def test_an_answer_that_kills_condemns_itself_and_not_its_document() -> None:
    """A worker that dies behind the document's tokens is no reason to refuse the document."""
    async with telling(stories("--poison-token", "4", "--announce")) as dispatcher:
        with pytest.raises(DocumentQuarantined):
            await tell(dispatcher, range(1, 9), info=request("innocent"))
        text = await tell(dispatcher, range(1, 9), max_tokens=4, info=request("innocent"))
        assert text == story(range(1, 9), max_tokens=4)
