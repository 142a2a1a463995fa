"""Random requests of many clients, and what must be true of what they are told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import (
    Uploading,
    analyze_messages,
    read_back,
    sending,
)
from tests.e2e.generation import hear, prompt
from tests.support.serving import Serving

SEEDS = 3
WORDS = ("fee", "due", "party", "loss", "term", "shall", "notice", "über", "漢字", "😀")


def tolerate(error: grpc.aio.AioRpcError) -> None:
    """Another client may have deleted what this one asks for; nothing else may go wrong.

    Raises:
        grpc.aio.AioRpcError: it did.
    """
    if error.code() is not grpc.StatusCode.NOT_FOUND:
        raise error


@dataclass
class Traffic:
    """What was stored and said; an answer that differs from an earlier one is a failure.

    Attributes:
        documents: bytes by document id.
        answers: text by bytes of the document and seed.
        done: requests by kind.
    """

    serving: Serving
    rng: random.Random
    documents: dict[str, bytes] = field(default_factory=dict)
    answers: dict[tuple[bytes, int], str] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)

    async def one(self) -> None:
        """One random request, to its end."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            *(self.upload, self.upload_in_parts, self.analyze, self.analyze_and_leave),
            *(self.generate, self.generate, self.read, self.delete),
        ]
        kind = self.rng.choice(kinds)
        await kind()
        name = kind.__name__
        self.done[name] = self.done.get(name, 0) + 1

    def text(self) -> bytes:
        """A document; some are sent again and again."""
        same = random.Random(self.rng.randrange(12))
        return " ".join(same.choices(WORDS, k=same.randrange(20, 400))).encode()

    async def upload(self) -> None:
        """A whole document at once."""
        await self._upload(self.text(), [])

    async def upload_in_parts(self) -> None:
        """The connection breaks some times."""
        data = self.text()
        await self._upload(data, sorted(self.rng.choices(range(1, len(data)), k=2)))

    async def _upload(self, data: bytes, breaks: list[int]) -> None:
        upload_id = ""
        for end in [*breaks, len(data)]:
            uploading = Uploading(self.serving.documents)
            start = await uploading.open(upload_id)
            await uploading.send(data, start, end, self.rng.randrange(10, 500))
            if end == len(data):
                document = await uploading.finish(data)
                self.documents[document.document_id] = data
            else:
                while uploading.acknowledged < end:
                    await uploading.hear()
                uploading.call.cancel()
                upload_id = uploading.upload_id

    async def analyze(self) -> None:
        """A document with its question."""
        data, seed = self.text(), self.rng.randrange(SEEDS)
        size = self.rng.randrange(20, 500)
        messages = analyze_messages(data, self._task(seed), size)
        await self._answer(self.serving.inference.Analyze(sending(messages)), data, seed)

    async def analyze_and_leave(self) -> None:
        """Hears only the beginning."""
        messages = analyze_messages(self.text(), self._task(0), 100)
        call = self.serving.inference.Analyze(sending(messages))
        for _ in range(self.rng.randrange(1, 5)):
            if await call.read() is grpc.aio.EOF:
                return
        call.cancel()

    async def generate(self) -> None:
        """A question about a document that is stored, or was a moment ago."""
        found = self._any()
        if found is None:
            return
        document_id, data = found
        seed = self.rng.randrange(SEEDS)
        request = pb.GenerateRequest(document_ids=[document_id], task=self._task(seed))
        await self._answer(self.serving.inference.Generate(request), data, seed)

    async def _answer(self, call: Any, data: bytes, seed: int) -> None:
        try:
            text = (await hear(call)).text
        except grpc.aio.AioRpcError as error:
            tolerate(error)
            return
        assert self.answers.setdefault((data, seed), text) == text, "another answer than before"

    async def read(self) -> None:
        """The bytes are those that were sent."""
        found = self._any()
        if found is not None:
            try:
                assert await read_back(self.serving.documents, found[0]) == found[1]
            except grpc.aio.AioRpcError as error:
                tolerate(error)

    async def delete(self) -> None:
        """Once in a while, so that not everything is gone."""
        found = self._any()
        if found is not None and self.rng.random() < 0.3:
            self.documents.pop(found[0], None)
            request = docs.DeleteDocumentRequest(document_id=found[0])
            try:
                await self.serving.documents.DeleteDocument(request)
            except grpc.aio.AioRpcError as error:
                tolerate(error)

    def _any(self) -> tuple[str, bytes] | None:
        return self.rng.choice(list(self.documents.items())) if self.documents else None

    def _task(self, seed: int) -> pb.Task:
        return prompt(max_tokens=40, seed=seed)

    async def run(self, clients: int, requests: int) -> None:
        """So many requests of so many clients."""

        async def client() -> None:
            for _ in range(requests):
                await self.one()

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
