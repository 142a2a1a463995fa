"""Equal requests at once are one: followers hear it live, and go on where a leader ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from longspan.server.results.levels import Level
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.cached import (
    TEXT,
    caching,
    call,
    document,
    first_words,
    greedy,
    joined,
    level,
    results_of,
    stats_of,
    told,
)
from tests.e2e.conversation import analyze_messages, reason, sending
from tests.e2e.generation import Written, hear, sequences_of
from tests.e2e.workers import quiet_log
from tests.pool.harness import until
from tests.pool.stories import stories
from tests.support.serving import Serving

# Of one step of the worker: slow enough to be joined, and to be left.
STEP = ("--step-s", "0.01")
TASK = greedy(max_tokens=60)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


@pytest_asyncio.fixture
async def slow(tmp_path: Path) -> AsyncIterator[Serving]:
    """A server whose answers take most of a second."""
    async with caching(tmp_path, *STEP) as serving:
        yield serving


async def _heard(one: Any, so_far: Written) -> Written:
    return await hear(one, so_far)


async def _text_came(written: Written) -> None:
    await until(lambda: bool(written.text))


def _more_than(length: int, written: Written, telling: asyncio.Task[Written]) -> Callable[[], bool]:
    return lambda: len(written.text) > length or telling.done()


def _sequences(serving: Serving) -> int:
    stats = sequences_of(serving).stats()
    return stats.queued_jobs + sum(worker.jobs for worker in stats.in_flight)


async def test_equal_requests_at_once_run_once_and_hear_it_live(slow: Serving) -> None:
    handle = await document(slow)
    heard = [Written() for _ in range(5)]
    leader = call(slow, handle, TASK)
    telling = [asyncio.create_task(_heard(leader, heard[0]))]
    await _text_came(heard[0])
    telling += [
        asyncio.create_task(_heard(call(slow, handle, TASK), written)) for written in heard[1:]
    ]
    for written in heard[1:]:
        await _text_came(written)
    assert not telling[0].done(), "followers heard text while the answer was being made"
    assert _sequences(slow) == 1
    answers = await asyncio.gather(*telling)
    assert len({answer.text for answer in answers}) == 1
    assert [level(answer) for answer in answers] == [None, *["flight"] * 4]
    stats = stats_of(slow)
    assert (stats.hits, stats.misses, stats.takeovers) == ({Level.FLIGHT: 4}, 1, 0)


async def test_a_follower_goes_on_where_its_leader_left(slow: Serving) -> None:
    """Each gets every word once, whoever is cancelled; nothing is made again."""
    handle = await document(slow)
    expected = (await told(slow, handle, TASK)).text
    await results_of(slow).kept()
    await results_of(slow).clear()
    calls, heard = [], [Written() for _ in range(5)]
    telling = []
    for written in heard:
        calls.append(call(slow, handle, TASK))
        telling.append(asyncio.create_task(_heard(calls[-1], written)))
        await _text_came(written)
    for place in range(3):
        calls[place].cancel()
        await joined(slow, 5 - place - 1)
        with pytest.raises(asyncio.CancelledError):
            await telling[place]
        await until(_more_than(len(heard[4].text), heard[4], telling[4]))
    answers = await asyncio.gather(*telling[3:])
    assert [answer.text for answer in answers] == [expected] * 2
    assert stats_of(slow).takeovers == 0
    assert [level(answer) for answer in answers] == ["flight"] * 2
    assert sequences_of(slow).stats().idle


async def test_what_everybody_has_left_is_stopped(slow: Serving) -> None:
    """And whoever comes then begins anew."""
    handle = await document(slow)
    calls = [call(slow, handle, TASK) for _ in range(3)]
    for one in calls:
        await first_words(one)
    assert _sequences(slow) == 1
    for one in calls:
        one.cancel()
    await until(lambda: sequences_of(slow).stats().idle)
    stats = stats_of(slow)
    assert (stats.stored, stats.flights) == (0, 0)
    assert level(await told(slow, handle, TASK)) is None


async def test_a_follower_takes_over_where_its_leader_failed(tmp_path: Path) -> None:
    """The leader's deadline passes while its work is queued; the follower has none."""
    pool = stories(*STEP, window_jobs=1)
    async with caching(tmp_path, pool=pool) as serving:
        handle = await document(serving)
        occupant = asyncio.create_task(hear(call(serving, handle, greedy("Long.", max_tokens=300))))
        await until(lambda: _sequences(serving) == 1)
        leader = asyncio.create_task(hear(call(serving, handle, TASK, timeout=1.5)))
        await joined(serving, 2)
        followers = [asyncio.create_task(hear(call(serving, handle, TASK))) for _ in range(2)]
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await leader
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        answers = await asyncio.gather(*followers)
        assert answers[0].text == answers[1].text != ""
        assert sorted(str(level(answer)) for answer in answers) == ["None", "flight"]
        assert stats_of(serving).takeovers == 1
        await occupant


async def test_urgent_requests_do_not_wait_for_patient_ones(slow: Serving) -> None:
    handle = await document(slow)
    patient = greedy(max_tokens=60)
    patient.priority = pb.PRIORITY_BATCH
    first = call(slow, handle, patient)
    await first_words(first)
    second = call(slow, handle, TASK)
    await first_words(second)
    assert _sequences(slow) == 2
    await asyncio.gather(hear(first), hear(second))


async def test_a_leader_s_deadline_is_its_own(slow: Serving) -> None:
    handle = await document(slow)
    task = greedy(max_tokens=300)
    leader = call(slow, handle, task, timeout=1.5)
    assert await first_words(leader)
    follower = asyncio.create_task(hear(call(slow, handle, task)))
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await hear(leader)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    answer = await follower
    assert answer.end.usage.output_tokens > 0


async def test_a_follower_s_own_end_disturbs_nobody(slow: Serving) -> None:
    handle = await document(slow)
    leader = Written()
    leading = asyncio.create_task(_heard(call(slow, handle, TASK), leader))
    await _text_came(leader)
    follower = call(slow, handle, TASK)
    await first_words(follower)
    follower.cancel()
    hurried = call(slow, handle, TASK, timeout=0.05)
    with pytest.raises(grpc.aio.AioRpcError):
        await hear(hurried)
    answer = await leading
    assert level(answer) is None
    assert stats_of(slow).misses == 1


async def test_what_fails_fails_for_each_and_is_not_kept(tmp_path: Path) -> None:
    async with caching(tmp_path, "--refuse", "too odd") as serving:
        handle = await document(serving)
        calls = [hear(call(serving, handle, TASK)) for _ in range(4)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, grpc.aio.AioRpcError) for end in ends)
        assert {reason(end) for end in ends if isinstance(end, grpc.aio.AioRpcError)} == {
            "GENERATION_FAILED"
        }
        stats = stats_of(serving)
        assert (stats.stored, stats.flights, stats.memory_bytes) == (0, 0, 0)


async def test_an_answer_too_long_to_share_is_made_for_each(tmp_path: Path) -> None:
    limits = {"kv_free_space_bytes": 0, "result_record_bytes": 64}
    async with caching(tmp_path, *STEP, limits=limits) as serving:
        handle = await document(serving)
        answers = await asyncio.gather(*(hear(call(serving, handle, TASK)) for _ in range(3)))
        assert len({answer.text for answer in answers}) == 1
        assert len(answers[0].text) > 64
        uploaded = analyze_messages(TEXT.encode(), TASK, 1000)
        arrived = await hear(serving.inference.Analyze(sending(uploaded)))
        assert arrived.text == answers[0].text
        stats = stats_of(serving)
        assert stats.too_large >= 1
        assert (stats.stored, stats.memory_bytes) == (0, 0)
