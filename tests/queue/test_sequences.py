"""Sequences over real worker processes: growing prompts, ends, bounds, homes."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import pytest

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import (
    DeadlineExceeded,
    Draining,
    GenerationFailed,
    InvalidRequest,
    LongspanError,
    PromptTooLong,
    QueueFull,
)
from longspan.server.queue.fair_queue import QueueLimits
from longspan.server.queue.output import AttentionUsage, FinishReason
from longspan.server.queue.sequence import Sequence
from longspan.server.queue.sequences import SequenceDispatcher
from tests.pool.harness import check_childless, until
from tests.pool.stories import heard, ids, request, stories, tell, telling
from tests.pool.story_worker import kv_bytes, story

PROMPT = list(range(7, 300))
FOREVER = pb.Sampling(max_tokens=100_000)


def _in_flight(dispatcher: SequenceDispatcher) -> int:
    return sum(entry.jobs for entry in dispatcher.stats().in_flight)


async def test_many_sequences_each_hear_their_own_story() -> None:
    """Concurrent sequences get the text that follows their own prompt and seed."""
    async with telling(stories(workers=2)) as dispatcher:
        prompts = [[number, *range(number, 3 * number)] for number in range(1, 30)]
        texts = await asyncio.gather(
            *(tell(dispatcher, prompt, seed=prompt[0]) for prompt in prompts)
        )
        expected = [story(prompt, seed=prompt[0], max_tokens=50) for prompt in prompts]
        assert texts == expected


async def test_a_prompt_that_grows_is_read_while_it_grows() -> None:
    """Tokens appended early are read before the seal, and the text is that of the whole."""
    async with telling(stories()) as dispatcher:
        sampling = pb.Sampling(max_tokens=40, seed=3)
        async with dispatcher.open(request(), sampling, ids(*PROMPT[:10])) as sequence:
            for start in range(10, 200, 10):
                sequence.append(ids(*PROMPT[start : start + 10]))
                await asyncio.sleep(0)
            await until(lambda: sequence.prefilled == 199)
            assert sequence.output.tokens == 0
            sequence.seal(ids(*PROMPT[200:]))
            assert await heard(sequence) == story(PROMPT, seed=3, max_tokens=40)
            assert sequence.output.finish.reason in FinishReason
            assert sequence.prefilled == len(PROMPT)
            assert sequence.prompt.task_start == 200


async def test_a_prompt_larger_than_one_message_arrives_whole() -> None:
    """A prompt that waited in the queue until it was larger than a message is sent in parts."""
    async with telling(stories("--chunk", "1000000", "--context", "900000")) as dispatcher:
        prompt = [number % 1000 for number in range(600_000)]
        text = await tell(dispatcher, prompt, max_tokens=5)
        assert text == story(prompt, max_tokens=5)


async def test_leaving_early_cancels_in_the_queue_and_on_the_worker() -> None:
    """A caller that leaves takes its sequence out of the queue, or off its worker."""
    async with telling(stories("--step-s", "0.01", window_jobs=1)) as dispatcher:
        async with dispatcher.open(request(), FOREVER, ids(1)) as running:
            running.seal(ids())
            assert await running.read()
            info = request()
            async with dispatcher.open(info, FOREVER, ids(2)) as queued:
                queued.seal(ids())
                assert dispatcher.position(info.request_id) == 0
                assert (dispatcher.stats().queued_jobs, _in_flight(dispatcher)) == (1, 1)
            assert dispatcher.stats().queued_jobs == 0
        await until(lambda: _in_flight(dispatcher) == 0, 1.0)


async def test_what_a_worker_has_and_has_not_begun_waits() -> None:
    """A worker takes more sequences than it computes at once; those are work that waits."""
    slow = telling(stories("--step-s", "0.3", "--chunk", "1"))
    async with slow as dispatcher, AsyncExitStack() as stack:
        for number in range(3):
            opened = dispatcher.open(request(), FOREVER, ids(*PROMPT[number:]))
            (await stack.enter_async_context(opened)).seal(ids())
        silent = await stack.enter_async_context(dispatcher.open(request(), FOREVER, ids()))
        await until(lambda: _in_flight(dispatcher) == 4)
        stats = dispatcher.stats()
        assert (stats.queued_jobs, stats.unbegun_jobs) == (0, 3)
        await asyncio.sleep(0.05)
        assert dispatcher.stats().oldest_age_s > stats.oldest_age_s
        await until(lambda: dispatcher.stats().unbegun_jobs == 0)
        assert dispatcher.stats().oldest_age_s == 0
        # What its client keeps back is no work that waits.
        silent.append(ids(*PROMPT))
        await until(lambda: dispatcher.stats().unbegun_jobs == 1, 1.0)
        assert dispatcher.stats().oldest_age_s < 0.3
        await until(lambda: dispatcher.stats().unbegun_jobs == 0)


async def test_a_deadline_ends_a_sequence_wherever_it_is() -> None:
    """The deadline passes in the queue, while the prompt grows, and while text comes."""
    async with telling(stories("--step-s", "0.06", window_jobs=2)) as dispatcher:
        at = asyncio.get_running_loop().time() + 0.2

        async def late(sealed: bool) -> None:
            async with dispatcher.open(request(deadline_s=at), FOREVER, ids(1)) as sequence:
                if sealed:
                    sequence.seal(ids(1))
                await heard(sequence)

        ends = await asyncio.gather(
            *(late(sealed) for sealed in (True, False, True)), return_exceptions=True
        )
        assert [type(end) for end in ends] == [DeadlineExceeded] * 3
        assert asyncio.get_running_loop().time() - at < 0.3


async def test_a_prompt_beyond_the_context_is_refused_when_it_is_counted() -> None:
    """The first append that cannot fit fails at once and names both counts."""
    async with telling(stories("--context", "100")) as dispatcher:
        async with dispatcher.open(request(), FOREVER, ids(*range(60))) as sequence:
            sequence.append(ids(*range(39)))
            with pytest.raises(PromptTooLong, match="100 tokens or more; this model takes 99"):
                sequence.append(ids(1))
            with pytest.raises(PromptTooLong):
                await heard(sequence)
        with pytest.raises(PromptTooLong):
            async with dispatcher.open(request(), FOREVER, ids(*range(100))):
                pass


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("PROMPT_TOO_LONG", PromptTooLong),
        ("OUT_OF_PAGES", PromptTooLong),
        ("BAD_GRAMMAR", InvalidRequest),
        ("DEADLINE_EXCEEDED", DeadlineExceeded),
        ("QUEUE_FULL", QueueFull),
        ("SOMETHING_ELSE", GenerationFailed),
    ],
)
async def test_what_a_worker_refuses_is_an_error_of_ours(
    reason: str, error: type[LongspanError]
) -> None:
    """Each reason of a worker's Failed is one class of error, with the worker's words."""
    async with telling(stories("--refuse", reason)) as dispatcher:
        sampling = pb.Sampling(max_tokens=1, grammar=pb.Grammar(json_schema="{"))
        async with dispatcher.open(request(), sampling, ids(1)) as sequence:
            with pytest.raises(error, match="as asked") as refused:
                await heard(sequence)
        assert type(refused.value) is error
        if error is InvalidRequest:
            assert refused.value.metadata["field"] == "task.generation.json_schema"


async def test_a_worker_has_at_most_a_window_of_sequences_and_positions_count_down() -> None:
    """Sequences beyond the window wait in order, and say how many are ahead."""
    async with telling(stories("--step-s", "0.002", window_jobs=2)) as dispatcher:
        infos = [request() for _ in range(6)]
        tasks = [asyncio.create_task(tell(dispatcher, [5, 6], info=info)) for info in infos]
        await asyncio.sleep(0)
        positions = [dispatcher.position(info.request_id) for info in infos]
        assert positions == [None, None, 0, 1, 2, 3]
        most = 0
        while not all(task.done() for task in tasks):
            most = max(most, _in_flight(dispatcher))
            await asyncio.sleep(0.001)
        assert most == 2
        assert {task.result() for task in tasks} == {story([5, 6], max_tokens=50)}


async def test_a_full_queue_refuses() -> None:
    """What the queue's bound does not hold is refused with advice when to come back."""
    limits = QueueLimits(tokens=250, tenant_share=1.0)
    async with (
        telling(stories("--step-s", "0.01", window_jobs=1), limits) as dispatcher,
        dispatcher.open(request(), FOREVER, ids(1)),
        dispatcher.open(request(), FOREVER, ids(1)),
        dispatcher.open(request(), FOREVER, ids(1)),
    ):
        with pytest.raises(QueueFull):
            async with dispatcher.open(request(), FOREVER, ids(1)):
                pass


async def test_sequences_about_one_document_go_to_the_worker_that_has_read_it() -> None:
    """Affinity: a document's second question goes home, others to the less loaded worker."""
    async with telling(stories(workers=2)) as dispatcher:
        await until(lambda: len(dispatcher.stats().in_flight) == 2)
        async with dispatcher.open(request("one"), FOREVER, ids(1)) as first:
            dispatcher.known_as(first, request("renamed").subject)
            one = {entry.worker for entry in dispatcher.stats().in_flight if entry.jobs}
            async with (
                dispatcher.open(request("one"), FOREVER, ids(1)),
                dispatcher.open(request("renamed"), FOREVER, ids(1)),
            ):
                at_home = [entry for entry in dispatcher.stats().in_flight if entry.jobs]
                assert [(entry.worker, entry.jobs) for entry in at_home] == [(*one, 3)]
                async with dispatcher.open(request("two"), FOREVER, ids(1)):
                    loads = {entry.jobs for entry in dispatcher.stats().in_flight}
                    assert loads == {1, 3}


async def test_a_document_goes_home_under_the_policy_that_it_was_read_under() -> None:
    """Another policy has other pages, so that it goes where there is less to do."""
    async with telling(stories(workers=2)) as dispatcher:
        await until(lambda: len(dispatcher.stats().in_flight) == 2)

        def asked(attention: str | None) -> AbstractAsyncContextManager[Sequence]:
            return dispatcher.open(request("one"), FOREVER, ids(1), attention=attention)

        async with asked(None), asked("full"):
            assert sorted(entry.jobs for entry in dispatcher.stats().in_flight) == [0, 2]
            async with asked("hybrid"):
                assert sorted(entry.jobs for entry in dispatcher.stats().in_flight) == [1, 2]


@pytest.mark.parametrize("policy", [None, "full", "hybrid"])
async def test_a_worker_is_told_the_policy_and_where_the_task_begins(policy: str | None) -> None:
    """Under the default it is told that; the figures come back with the end."""
    async with telling(stories()) as dispatcher:
        sampling = pb.Sampling(max_tokens=3)
        async with dispatcher.open(request(), sampling, ids(1, 2), attention=policy) as sequence:
            sequence.append(ids(3, 4, 5))
            sequence.seal(ids(6, 7))
            await heard(sequence)
            assert sequence.output.finish.attention == AttentionUsage(
                policy=policy or "full", kv_bytes=kv_bytes(7, 5), seen_share=0.5
            )


async def test_a_policy_that_drops_pages_is_bounded_by_positions_alone() -> None:
    """What is too long for all other policies is read under it."""
    async with telling(stories("--context", "100", "--positions", "300")) as dispatcher:
        async with dispatcher.open(
            request(), pb.Sampling(max_tokens=3), ids(*range(200)), attention="window"
        ) as sequence:
            sequence.append(ids(*range(99)))
            with pytest.raises(PromptTooLong, match="300 tokens or more; this model takes 299"):
                sequence.append(ids(1))
        with pytest.raises(PromptTooLong, match="this model takes 99"):
            async with dispatcher.open(request(), FOREVER, ids(*range(100)), attention="hybrid"):
                pass


async def test_each_worker_is_started_for_its_slot() -> None:
    """The command factory is told the slot, by which a worker is bound to a device."""
    async with telling(stories(workers=2)) as dispatcher:
        await until(lambda: len(dispatcher.pids) == 2)
        assert dispatcher.model is not None
        assert dispatcher.model.device in {"slot:0", "slot:1"}


async def test_text_that_nobody_reads_is_bounded() -> None:
    """A caller that lets too much text wait is cut off, and its worker is told."""
    async with (
        telling(stories("--say", "x" * 3, "--chunk", "9")) as dispatcher,
        dispatcher.open(request(), pb.Sampling(max_tokens=9), ids(1)) as sequence,
    ):
        sequence.output.add(0, b"", "x" * (1 << 20), 0.0)
        sequence.seal(ids(1))
        await until(lambda: sequence.output.ended)
        assert len(await sequence.read() or "") == (1 << 20) + 1
        with pytest.raises(DeadlineExceeded, match="nobody reads"):
            await sequence.read()


async def test_stopping_ends_everyone_who_waits() -> None:
    """A server that stops ends queued and running sequences with Draining."""
    dispatcher = SequenceDispatcher(stories("--step-s", "0.01", window_jobs=1), QueueLimits())
    dispatcher.start()
    await dispatcher.wait_ready()
    tasks = [asyncio.create_task(tell(dispatcher, [1, 2], max_tokens=100_000)) for _ in range(3)]
    await until(lambda: _in_flight(dispatcher) == 1)
    await dispatcher.stop()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [Draining] * 3
    dispatcher.check_idle()
    check_childless()


async def test_prompts_whose_clients_say_nothing_leave_their_places_to_others() -> None:
    """Open headers cost a worker nothing; a question beside any number of them is answered."""
    async with (
        telling(stories("--chunk", "10", window_jobs=2)) as dispatcher,
        AsyncExitStack() as stack,
    ):
        silent = [
            await stack.enter_async_context(
                dispatcher.open(request(f"silent {number}"), pb.Sampling(max_tokens=9), ids(1, 2))
            )
            for number in range(6)
        ]
        await until(lambda: _in_flight(dispatcher) == 6)
        assert await tell(dispatcher, [4, 5, 6]) == story([4, 5, 6], max_tokens=50)
        for sequence in silent:
            sequence.append(ids(3))
            sequence.seal(ids(4))
        texts = [await heard(sequence) for sequence in silent]
        assert texts == [story([1, 2, 3, 4], max_tokens=9)] * 6
