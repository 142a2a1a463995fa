"""One task of one request: begun while the document arrives, answered when it is indexed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from longspan.server.aio import cancel_and_wait
from longspan.server.embedder import Embedder
from longspan.server.queue.request import RequestInfo
from longspan.server.tasks.answer import AnswerEvent
from longspan.server.tasks.ask import Asked, Question, read_question
from longspan.server.tasks.content import Content
from longspan.server.tasks.summarize import Summarized
from longspan.server.tasks.task import Ask, Prompt, Summarize, Task


class TaskRun:
    """Runs one task; ``close`` must be called whatever happens.

    Attributes:
        task_tokens: tokens of the question and the sentences compared with it.
    """

    def __init__(self, task: Task, embedder: Embedder, request: RequestInfo) -> None:
        assert not isinstance(task, Prompt), "check_task lets no prompt pass"
        self._task = task
        self._embedder = embedder
        self._request = request
        self._question: asyncio.Task[Question] | None = None
        self.task_tokens = 0

    async def begin(self) -> None:
        """Do what needs no document.

        Raises:
            QuestionTooLong: the model does not read so much.
        """
        if isinstance(self._task, Ask):
            ids = await self._embedder.tokenise_question(self._task.question)
            self._question = asyncio.create_task(
                read_question(self._task.question, ids, self._embedder, self._request)
            )

    async def answer(self, contents: Sequence[Content]) -> AsyncIterator[AnswerEvent]:
        """Yield the answer's events; none when the documents hold no answer."""
        run = await self._run()
        async for event in run.answer(contents):
            yield event
        self.task_tokens = run.task_tokens

    async def close(self) -> None:
        """Stop what ``begin`` started, if it still runs."""
        if self._question is not None:
            await cancel_and_wait(self._question)

    async def _run(self) -> Asked | Summarized:
        if isinstance(self._task, Summarize):
            return Summarized(self._embedder, self._request, self._task.max_sentences)
        assert isinstance(self._task, Ask)
        assert self._question is not None
        question = await self._question
        return Asked(question, self._embedder, self._request, self._task.max_citations)
