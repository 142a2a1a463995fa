"""Documents whose KV would fill the pool three times over never stand in anybody's way."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from longspan.v1 import document_service_pb2_grpc
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import store
from tests.e2e.generation import Written, hear, prompt
from tests.e2e.real_decoders import answering
from tests.support.serving import Serving
from tests.worker.decoding import story_tokens, stretched_stories

KV_BYTES = 4 << 20
PAGE = 256
IDLE = 14
REQUESTS = 50
SENTENCES = 64
TASK = prompt("Tell it again.", max_tokens=8, temperature=0)


def story(number: int) -> str:
    """A text that no other begins like."""
    rng = random.Random(number)
    names = ("Tom", "Lily", "Ben", "Anna", "Sam")
    things = ("a ball", "a cat", "the park", "a red box", "two birds")
    lines = (
        f"{rng.choice(names)} saw {rng.choice(things)} {rng.randrange(100)} times."
        for _ in range(SENTENCES)
    )
    return f"Story {number}. " + " ".join(lines)


async def told(serving: Serving, document_id: str) -> Written:
    """The answer about a stored document."""
    request = pb.GenerateRequest(document_ids=[document_id], task=TASK)
    return await hear(serving.inference.Generate(request))


async def stored(serving: Serving, number: int) -> str:
    """The id of a new document."""
    stub = document_service_pb2_grpc.DocumentServiceStub(serving.channel)
    return (await store(stub, story(number).encode())).document_id


def capacity_tokens(serving: Serving) -> int:
    """What the worker's pool holds."""
    decoder = serving.server.application.decoder
    assert decoder is not None
    return decoder.model.kv_tokens


async def test_idle_documents_block_nobody(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model = stretched_stories(tmp_path / "model", context_tokens=4096)
    async with answering(tmp_path / "data", model, kv_memory=KV_BYTES) as serving:
        ids = [await stored(serving, number) for number in range(IDLE)]
        first = {document_id: (await told(serving, document_id)).text for document_id in ids}
        tokens = sum(len(story_tokens(story(number))) for number in range(IDLE))
        capacity = capacity_tokens(serving)
        print(f"{tokens} tokens of idle documents over a pool for {capacity}")
        assert tokens >= 3 * capacity
        new = [await stored(serving, number) for number in range(IDLE, IDLE + REQUESTS // 2)]
        asked = [*new, *random.Random(1).choices(ids, k=REQUESTS - len(new))]
        answers = await asyncio.gather(*(told(serving, document_id) for document_id in asked))
        for document_id, written in zip(asked, answers, strict=True):
            assert written.end.usage.document_tokens > PAGE
            assert written.text == first.get(document_id, written.text)
        # What is in use is nothing: ``serving`` checks it at its end.
