"""What the server's spans say of calls that end in every way; the decoder is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from longspan.client import AsyncClient, Client
from longspan.server.identity import DEFAULT_TENANT, DocumentId
from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import analyze_messages, ask, listen, store, upload_messages
from tests.e2e.generation import generating, hear, prompt
from tests.e2e.workers import serving_with
from tests.pool.harness import config
from tests.pool.stories import stories
from tests.support.collector import Collector, Received, black_hole, closed_port, collecting
from tests.support.serving import Serving
from tests.support.tracing import calling, server_span
from tests.worker.models import skip_without_embedded

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "The supplier pays. The customer is told within 20 hours. " * 10
SAID = 'It says "The customer is told within 20 hours" and "the moon is made of cheese".'
STEP_S = 0.05


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """One for the module."""
    with collecting() as collector:
        yield collector


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Serving]:
    """A server whose decoder takes its time."""
    pool = stories("--step-s", str(STEP_S))
    folder = tmp_path_factory.mktemp("outcomes")
    tracing = {"endpoint": collector.endpoint, "lookup_ratio": 1.0}
    async with generating(folder, pool, tracing=tracing) as serving:
        yield serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document_id(serving: Serving) -> str:
    """A stored document."""
    return (await store(serving.documents, TEXT.encode())).document_id


def _generate(serving: Serving, document_id: str, timeout: float | None = None, **task: Any) -> Any:
    request = pb.GenerateRequest(document_ids=[document_id], task=prompt(**task))
    return serving.inference.Generate(request, timeout=timeout)


async def _failed(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await hear(call)
    code: grpc.StatusCode = failure.value.code()
    return code


def _code(span: Received) -> object:
    return span.attributes["rpc.response.status_code"]


async def test_success(serving: Serving, collector: Collector, document_id: str) -> None:
    call = _generate(serving, document_id, max_tokens=3, seed=1)
    await hear(call)
    span = await server_span(collector, call)
    assert (span.status, _code(span)) == ("UNSET", "OK")
    assert span.attributes["rpc.grpc.status_code"] == 0
    assert (span.attributes["rpc.service"], span.attributes["rpc.method"]) == (
        "longspan.v1.InferenceService",
        "Generate",
    )
    assert span.attributes["gen_ai.operation.name"] == "chat"
    assert span.attributes["gen_ai.request.model"]


async def test_both_clients_hand_their_trace_on(
    serving: Serving, collector: Collector, document_id: str
) -> None:
    def blocking() -> None:
        with Client(serving.target) as client:
            client.get(document_id)

    with calling(collector) as caller:
        with caller.span() as by_blocking:
            await asyncio.to_thread(blocking)
        async with AsyncClient(serving.target) as client:
            with caller.span() as by_async:
                await client.get(document_id)
            # Outside of any span there is no trace to belong to.
            await client.get(document_id)
    name = "longspan.v1.DocumentService/GetDocument"
    await collector.until(lambda: len(collector.named(name)) >= 3)
    for trace_id in (by_blocking, by_async):
        [client_span] = collector.named("client", trace_id)
        assert collector.child(client_span, name) is not None
    assert "" in {span.parent_id for span in collector.named(name)}


async def test_an_answer_that_was_heard_is_no_cancelled_call(
    serving: Serving, collector: Collector, document_id: str
) -> None:
    """A client that hangs up behind the last event is as usual as one that waits for the end."""
    call = _generate(serving, document_id, max_tokens=3, seed=2)
    async for event in call:
        if event.WhichOneof("event") == "completed":
            break
    wanted = server_span(collector, call)
    call.cancel()
    span = await wanted
    assert (span.status, _code(span)) == ("UNSET", "OK")


async def test_a_client_that_cancels(
    serving: Serving, collector: Collector, document_id: str
) -> None:
    call = _generate(serving, document_id, max_tokens=500, seed=1)
    async for event in call:
        if event.WhichOneof("event") == "delta":
            break
    wanted = server_span(collector, call)
    call.cancel()
    span = await wanted
    assert (span.status, _code(span)) == ("UNSET", "CANCELLED")
    queue = await collector.until(lambda: collector.child(span, "queue"))
    assert queue.end_ns <= span.end_ns


async def test_a_deadline_that_passes(
    serving: Serving, collector: Collector, document_id: str
) -> None:
    call = _generate(serving, document_id, timeout=1.0, max_tokens=500, seed=1)
    assert await _failed(call) is grpc.StatusCode.DEADLINE_EXCEEDED
    span = await server_span(collector, call)
    assert (span.status, _code(span)) == ("ERROR", "DEADLINE_EXCEEDED")


async def test_bad_input(serving: Serving, collector: Collector, document_id: str) -> None:
    call = _generate(serving, document_id, max_tokens=-1)
    assert await _failed(call) is grpc.StatusCode.INVALID_ARGUMENT
    span = await server_span(collector, call)
    assert (span.status, _code(span)) == ("UNSET", "INVALID_ARGUMENT")


async def test_what_is_not_there(serving: Serving, collector: Collector) -> None:
    call = serving.documents.GetDocument(docs.GetDocumentRequest(document_id="doc_none"))
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    span = await server_span(collector, call)
    assert (span.status, _code(span)) == ("UNSET", "NOT_FOUND")


async def test_a_broken_document(serving: Serving, collector: Collector) -> None:
    """The upload's own span has the error's name, and so has the reader's behind it."""
    call = serving.documents.Upload(upload_messages(b"abc\xff\xfe"))
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in call:
            pass
    span = await server_span(collector, call)
    assert (span.status, _code(span)) == ("UNSET", "INVALID_ARGUMENT")
    upload = await collector.until(lambda: collector.child(span, "upload"))
    assert (upload.status, upload.attributes["error.type"]) == ("UNSET", "InvalidUtf8")


async def test_a_fault_of_the_server(collector: Collector, tmp_path: Path) -> None:
    """The file of a document is cut, which nothing foresees."""
    tracing = {"endpoint": collector.endpoint, "lookup_ratio": 1.0}
    async with generating(tmp_path, stories(), tracing=tracing) as broken:
        stored = await store(broken.documents, TEXT.encode())
        library = broken.server.application.library
        document = await library.document(DEFAULT_TENANT, DocumentId(stored.document_id))
        library.vault.content(document).write_bytes(b"")
        call = broken.documents.ReadDocument(
            docs.ReadDocumentRequest(document_id=stored.document_id)
        )
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
    span = await server_span(collector, call)
    assert (span.status, _code(span)) == ("ERROR", "INTERNAL")


async def test_quotations_are_one_span(collector: Collector, tmp_path: Path) -> None:
    tracing = {"endpoint": collector.endpoint}
    async with generating(tmp_path, stories("--say", SAID), tracing=tracing) as talking:
        stored = await store(talking.documents, TEXT.encode())
        call = _generate(talking, stored.document_id, max_tokens=500)
        written = await hear(call)
    assert (len(written.citations), len(written.unverified)) == (1, 1)
    span = await server_span(collector, call)
    check = await collector.until(lambda: collector.child(span, "check quotations"))
    counts = [
        check.attributes[f"longspan.quotations.{kind}"] for kind in ("verified", "unverified")
    ]
    assert counts == [1, 1]


async def test_what_the_encoder_answers(collector: Collector, tmp_path: Path) -> None:
    skip_without_embedded()
    tracing = {"endpoint": collector.endpoint}
    async with serving_with(tmp_path, config(), tracing=tracing) as asked:
        messages = analyze_messages(TEXT.encode(), ask("Who pays?"), 100)
        call = asked.inference.Analyze(messages)
        answer = await listen(call)
    span = await server_span(collector, call)
    assert span.attributes["gen_ai.operation.name"] == "retrieval"
    names = ("upload", "tokenise", "embed", "rank")
    upload, tokenise, embed, rank = (collector.child(span, name) for name in names)
    assert upload is not None
    assert upload.attributes["longspan.bytes"] == len(TEXT.encode())
    assert tokenise is not None
    assert tokenise.attributes["longspan.tokens"] == answer.end.usage.document_tokens
    assert embed is not None
    assert embed.attributes["longspan.passages"] > 0
    assert rank is not None
    assert rank.start_ns >= embed.end_ns


@pytest.mark.parametrize("endpoint", [closed_port, black_hole])
async def test_a_collector_in_trouble_holds_nobody_up(
    endpoint: Callable[[], AbstractContextManager[str]], tmp_path: Path
) -> None:
    """Requests are answered, and the server stops in bounded time; the spans are dropped."""
    with endpoint() as url:
        async with asyncio.timeout(30.0):
            async with generating(tmp_path, stories(), tracing={"endpoint": url}) as serving:
                stored = await store(serving.documents, TEXT.encode())
                for seed in range(5):
                    await hear(_generate(serving, stored.document_id, max_tokens=3, seed=seed))
                tracing = serving.server.application.tracing
    assert tracing.spans_exported == 0
    # Six calls, and their parts.
    assert tracing.spans_dropped > 6
