"""Two hundred streams at once, each with words of its own: nobody is told another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from longspan.v1 import document_service_pb2 as docs
from tests.e2e.conversation import (
    Answer,
    analyze_messages,
    ask,
    listen,
    sending,
    store,
    tenant,
)
from tests.e2e.workers import serving_with
from tests.pool.harness import config
from tests.support.serving import Serving
from tests.worker.models import skip_without_embedded

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAMS = 200
TENANTS = 5


def document(number: int) -> bytes:
    """Each of its sentences has the number that nobody else's has."""
    verbs = ("orders", "delivers", "refunds", "inspects", "returns")
    return "".join(
        f"Canary{number:04} {verb} {number * 7 + place} crates on day {place}. "
        for place, verb in enumerate(verbs)
    ).encode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """Quick workers, several tenants."""
    skip_without_embedded()
    pool = config(workers=2, window_tokens=2000)
    async with serving_with(
        tmp_path_factory.mktemp("data"), pool, trust_tenant_metadata=True
    ) as running:
        yield running


def quotes(answer: Answer) -> list[str]:
    """The quotations."""
    return [str(said[3]) for said in answer.said if said[0] == "citation"]


async def analyse(serving: Serving, number: int) -> tuple[int, Answer, str]:
    """One stream: its document in small pieces, and a question."""
    question = ask(f"What does Canary{number:04} order?", citations=2)
    messages = analyze_messages(document(number), question, 40)
    metadata = tenant(f"tenant{number % TENANTS}")
    call = serving.inference.Analyze(sending(messages), metadata=metadata)
    answer = await listen(call)
    [stored] = answer.end.documents
    return number, answer, stored.document_id


async def test_every_stream_is_told_of_its_own_document_alone(serving: Serving) -> None:
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(analyse(serving, number)) for number in range(STREAMS)]
    ids = set()
    for task in running:
        number, answer, document_id = task.result()
        ids.add(document_id)
        text = "".join(str(said[1]) for said in answer.said if said[0] == "delta")
        assert quotes(answer)
        assert all(f"Canary{number:04}" in quote for quote in quotes(answer))
        assert f"Canary{number:04}" in text
        assert text.count("Canary") == text.count(f"Canary{number:04}")
    assert len(ids) == STREAMS


async def test_the_same_bytes_of_two_tenants_are_two_documents(serving: Serving) -> None:
    data = document(9999)
    one = await store(serving.documents, data, tenant("one"))
    two = await store(serving.documents, data, tenant("two"))
    assert one.document_id != two.document_id
    assert await read_back_of(serving, "one", one.document_id) == data
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await read_back_of(serving, "two", one.document_id)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


async def read_back_of(serving: Serving, name: str, document_id: str) -> bytes:
    """The bytes of a tenant's document."""
    request = docs.ReadDocumentRequest(document_id=document_id)
    call = serving.documents.ReadDocument(request, metadata=tenant(name))
    return b"".join([part.data async for part in call])
