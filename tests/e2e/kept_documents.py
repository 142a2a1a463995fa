"""Documents long enough to have KV pages, and questions about where those lie."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from longspan.v1 import cache_service_pb2 as caches
from longspan.v1 import document_pb2
from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import analyze_messages, sending
from tests.e2e.generation import Written, hear, prompt
from tests.support.serving import Serving

CONTEXT = 4096
PAGE = 256
SETTLE_S = 20.0


def long_text(number: int) -> bytes:
    """About six pages of one's own."""
    lines = [f" {number}: Tom saw {n} birds and {n * 3 % 41} fish." for n in range(80)]
    return "".join(lines).encode()


async def analyzed(serving: Serving, data: bytes, metadata: Any = None) -> Written:
    """A document streamed up, read by the decoder while it arrives, and asked."""
    messages = analyze_messages(data, prompt("Then", max_tokens=4), 1000)
    return await hear(serving.inference.Analyze(sending(messages), metadata=metadata))


async def asked(
    serving: Serving, ids: Sequence[str], metadata: Any = None, **options: Any
) -> Written:
    """Another instruction on stored documents."""
    task = prompt("And then", max_tokens=4, **options)
    request = pb.GenerateRequest(document_ids=ids, task=task)
    return await hear(serving.inference.Generate(request, metadata=metadata))


def document_of(written: Written) -> document_pb2.Document:
    """The one that an answer is about."""
    [document] = written.end.documents
    return document


async def described(
    serving: Serving, document_id: str, metadata: Any = None
) -> document_pb2.Document:
    """A stored document."""
    request = docs.GetDocumentRequest(document_id=document_id)
    return (await serving.documents.GetDocument(request, metadata=metadata)).document


async def described_once(
    serving: Serving, document_id: str, wanted: Callable[[document_pb2.Document], bool]
) -> document_pb2.Document:
    """A stored document, as soon as it is as it should be."""
    deadline = time.monotonic() + SETTLE_S
    while not wanted(found := await described(serving, document_id)):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)
    return found


async def held(serving: Serving, metadata: Any = None) -> document_pb2.KvHolding:
    """What is kept of all that a tenant has."""
    return (await serving.caches.Stats(caches.StatsRequest(), metadata=metadata)).held


async def held_once(
    serving: Serving, wanted: Callable[[document_pb2.KvHolding], bool], metadata: Any = None
) -> document_pb2.KvHolding:
    """What is kept of all that a tenant has, as soon as it is as it should be."""
    deadline = time.monotonic() + SETTLE_S
    while not wanted(found := await held(serving, metadata)):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)
    return found


async def holds_nothing(serving: Serving, metadata: Any = None) -> None:
    """Wait until nothing is kept of a tenant."""
    await held_once(serving, lambda found: found == document_pb2.KvHolding(), metadata)
