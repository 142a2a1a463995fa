"""Questions to real worker processes that answer late, never, or not any more."""

from __future__ import annotations

import asyncio
import os
import signal

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.pool.config import MOST_QUESTIONS
from longspan.server.queue.questions import Question
from tests.pool.harness import until
from tests.pool.stories import stories, tell, telling
from tests.pool.story_worker import story

FOREVER_S = 60.0


def inventory() -> Question:
    return lambda request_id: pb.ExecuteRequest(inventory=pb.Inventory(request_id=request_id))


async def test_an_answer_comes_to_its_question_amid_sequences() -> None:
    async with telling(stories()) as dispatcher:
        [worker] = dispatcher.workers
        asked = [dispatcher.questions.ask(worker, inventory(), FOREVER_S) for _ in range(20)]
        telling_all = asyncio.create_task(tell(dispatcher, [1, 2, 3]))
        answers = await asyncio.gather(*asked)
        text = await telling_all
        assert text == story([1, 2, 3], max_tokens=50)
        ids = [answer.holdings.request_id for answer in answers if answer is not None]
        assert ids == sorted(set(ids))
        assert len(ids) == 20


async def test_a_worker_that_does_not_answer_is_not_waited_for() -> None:
    """It says nothing in time, and what it says later is nobody's; its sequences go on."""
    async with telling(stories("--answer-s", "0.2")) as dispatcher:
        [worker] = dispatcher.workers
        assert await dispatcher.questions.ask(worker, inventory(), 0.01) is None
        assert await tell(dispatcher, [1, 2]) == story([1, 2], max_tokens=50)
        late = await dispatcher.questions.ask(worker, inventory(), FOREVER_S)
        assert late is not None


async def test_a_stopped_worker_is_asked_so_much_and_no_more() -> None:
    """Its commands wait in memory; what nobody waits for any more is never written."""
    async with telling(stories()) as dispatcher:
        [worker] = dispatcher.workers
        [pid] = dispatcher.pids
        os.kill(pid, signal.SIGSTOP)
        questions = dispatcher.questions
        asked = [
            asyncio.create_task(questions.ask(worker, inventory(), FOREVER_S))
            for _ in range(20_000)
        ]
        await asyncio.sleep(0)
        refused = sum(task.done() for task in asked)
        assert refused >= len(asked) - 10 * MOST_QUESTIONS
        os.kill(pid, signal.SIGKILL)
        assert set(await asyncio.gather(*asked)) == {None}
        await until(lambda: dispatcher.ready and dispatcher.pids != [pid], 10.0)
        [again] = dispatcher.workers
        assert await questions.ask(worker, inventory(), FOREVER_S) is None
        assert await questions.ask(again, inventory(), FOREVER_S) is not None
