"""The life of a document: stored, listed, read, indexed once, kept over restarts, deleted."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from longspan.server.identity import DEFAULT_TENANT, DocumentId, document_id
from longspan.server.limits import Limits
from longspan.v1 import document_pb2
from longspan.v1 import document_service_pb2 as documents_pb
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.raw_calls import (
    Answer,
    Refusal,
    ask,
    chunk,
    collect,
    generate,
    header,
    read,
    refused,
    store,
    upload,
    whole,
)
from tests.support.data import EXAMPLES
from tests.support.serving import Serving, serving
from tests.worker.models import skip_without_embedded

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = (EXAMPLES / "services-agreement.md").read_bytes()
SHORT = b"The fee is 3 euros. It is due on Monday.\n"
FEE = ask("What is the fee?")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def restarted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server that found SHORT, indexed, in its data directory."""
    skip_without_embedded()
    data_dir = tmp_path_factory.mktemp("data")
    async with serving(data_dir) as running:
        await store(running, SHORT, title="short")
    async with serving(data_dir) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server without a model."""
    async with serving(tmp_path_factory.mktemp("data"), encoder="none") as running:
        yield running


def id_of(data: bytes) -> DocumentId:
    """The id that these bytes will have."""
    return document_id(DEFAULT_TENANT, hashlib.sha256(data).hexdigest())


def files(running: Serving) -> list[Path]:
    """Everything under documents/ and uploads/."""
    folder = running.config.data_dir
    return [
        path
        for part in ("documents", "uploads")
        for path in (folder / part).rglob("*")
        if path.is_file()
    ]


async def get(running: Serving, one: str) -> document_pb2.Document:
    """GetDocument."""
    request = documents_pb.GetDocumentRequest(document_id=one)
    return (await running.documents.GetDocument(request)).document


async def delete(running: Serving, one: str) -> None:
    """DeleteDocument."""
    await running.documents.DeleteDocument(documents_pb.DeleteDocumentRequest(document_id=one))


async def pages(running: Serving, size: int) -> list[list[str]]:
    """All pages of the list, as ids."""
    found, token = [], ""
    while True:
        request = documents_pb.ListDocumentsRequest(page_size=size, page_token=token)
        page = await running.documents.ListDocuments(request)
        found.append([document.document_id for document in page.documents])
        token = page.next_page_token
        if not token:
            return found


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that nobody announces."""
    while not await holds():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def nothing_open(running: Serving) -> bool:
    """No upload can be resumed."""
    return await running.server.application.library.count_uploads() == 0


async def test_a_document_lives_from_upload_to_deletion(plain: Serving) -> None:
    data = b"0123456789" * 300_000
    stored = await store(plain, data, title="digits", media_type="text/markdown")
    assert stored.document_id == id_of(data)
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert (stored.size_bytes, stored.size_chars) == (len(data), len(data))
    assert (stored.title, stored.media_type) == ("digits", "text/markdown")
    assert await get(plain, stored.document_id) == stored
    for start, end in [(0, 0), (0, 1), (7, 7), (999_999, 2_500_001), (len(data), 0)]:
        assert await read(plain, stored.document_id, start, end) == data[start : end or None]
    await delete(plain, stored.document_id)
    assert files(plain) == []
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await get(plain, stored.document_id)
    assert Refusal.of(gone.value).reason == "DOCUMENT_MISSING"
    assert await pages(plain, 10) == [[]]
    await plain.settled()


async def test_the_list_is_newest_first_and_whole_on_any_page_size(plain: Serving) -> None:
    stored = [(await store(plain, b"%d" % number)).document_id for number in range(9)]
    newest_first = stored[::-1]
    for size in (1, 2, 3, 8, 9, 10, 1000):
        found = await pages(plain, size)
        assert [one for page in found for one in page] == newest_first
        assert all(len(page) == size for page in found[:-1])
    for one in stored:
        await delete(plain, one)


async def test_paging_goes_on_behind_a_document_deleted_meanwhile(plain: Serving) -> None:
    stored = [(await store(plain, b"%d" % number)).document_id for number in range(4)]
    request = documents_pb.ListDocumentsRequest(page_size=2)
    first = await plain.documents.ListDocuments(request)
    await delete(plain, first.documents[-1].document_id)
    request.page_token = first.next_page_token
    second = await plain.documents.ListDocuments(request)
    assert [one.document_id for one in second.documents] == [stored[1], stored[0]]
    for one in stored[:2] + stored[3:]:
        await delete(plain, one)


async def test_the_same_bytes_are_one_document_with_the_latest_title(plain: Serving) -> None:
    first = await store(plain, SHORT, title="first")
    again = await store(plain, SHORT, title="again")
    assert again.document_id == first.document_id
    assert again.create_time == first.create_time
    assert (await get(plain, first.document_id)).title == "again"
    assert len(files(plain)) == 1
    await delete(plain, first.document_id)
    assert files(plain) == []


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none") as running:
        stored = await store(running, SHORT, title="kept")
        events, _ = await upload(running, [header(title="open"), chunk(0, b"half ")])
    async with serving(tmp_path, encoder="none") as running:
        assert await get(running, stored.document_id) == stored
        assert await read(running, stored.document_id) == SHORT
        messages = whole(b"half done", [5])
        messages[:2] = [header(upload_id=events[0].accepted.upload_id)]
        resumed, refusal = await upload(running, messages)
        assert refusal is None
        assert resumed[0].accepted.committed_bytes == 5
        assert resumed[-1].stored.document.title == "open"


async def test_an_upload_that_nobody_resumes_expires(tmp_path: Path) -> None:
    limits = Limits(upload_lease_s=0.3)
    async with serving(tmp_path, encoder="none", limits=limits) as running:
        events, _ = await upload(running, [header(), chunk(0, b"half ")])
        finished, _ = await upload(running, whole(SHORT))
        await until(lambda: nothing_open(running))
        assert [path.parent.name for path in files(running)] != ["uploads"]
        assert len(files(running)) == 1
        await asyncio.sleep(limits.upload_lease_s)
        for opened in (events, finished):
            upload_id = opened[0].accepted.upload_id
            refusal = await refused(running, [header(upload_id=upload_id)])
            assert refusal.reason == "UPLOAD_MISSING"


async def test_an_upload_that_is_being_sent_does_not_expire(tmp_path: Path) -> None:
    async def slowly() -> AsyncIterator[documents_pb.UploadRequest]:
        for message in whole(SHORT, [9]):
            yield message
            await asyncio.sleep(0.4)

    limits = Limits(upload_lease_s=0.1)
    async with serving(tmp_path, encoder="none", limits=limits) as running:
        events, refusal = await collect(running.documents.Upload(slowly()))
        assert refusal is None
        assert events[-1].HasField("stored")


async def test_a_server_without_a_model_stores_and_says_why_it_answers_nothing(
    plain: Serving,
) -> None:
    stored = await store(plain, SHORT)
    request = pb.GenerateRequest(document_ids=[stored.document_id], task=FEE)
    _, refusal = await collect(plain.inference.Generate(request))
    assert refusal is not None
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "WORKERS_UNAVAILABLE")
    assert "without a model" in refusal.message
    await delete(plain, stored.document_id)


async def test_an_index_survives_a_restart(restarted: Serving) -> None:
    answer = await generate(restarted, [id_of(SHORT)], FEE)
    usage = answer.completed.usage
    assert usage.cached_tokens == usage.document_tokens > 0
    assert [one.quote for one in answer.citations][:1] == ["The fee is 3 euros."]


def index_file(running: Serving, data: bytes) -> Path:
    """The index file of a document."""
    sha256 = hashlib.sha256(data).hexdigest()
    [path] = running.config.data_dir.rglob(f"{sha256}.*.index")
    return path


def forget(running: Serving, data: bytes) -> None:
    """Drop an index from memory, as a restart does."""
    indexes = running.server.application.indexes
    assert indexes is not None
    indexes.forget(id_of(data))


async def check_rebuilt(running: Serving, expected: Answer) -> None:
    """The same answer, from a new index, which serves the next question."""
    forget(running, SHORT)
    answer = await generate(running, [id_of(SHORT)], FEE)
    assert (answer.text, answer.citations) == (expected.text, expected.citations)
    assert answer.completed.usage.cached_tokens == 0
    forget(running, SHORT)
    again = await generate(running, [id_of(SHORT)], FEE)
    assert again.completed.usage.cached_tokens == again.completed.usage.document_tokens


async def test_a_damaged_or_foreign_index_is_built_again(restarted: Serving) -> None:
    expected = await generate(restarted, [id_of(SHORT)], FEE)
    path = index_file(restarted, SHORT)
    good = path.read_bytes()
    other = await store(restarted, b"Cats sleep. Dogs bark at the moon. Fish swim.")
    foreign = index_file(restarted, b"Cats sleep. Dogs bark at the moon. Fish swim.")
    middle, last = len(good) // 2, len(good) - 1
    damaged = [b"", b"nonsense", good[:middle], good + b"x"]
    damaged += [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in (0, 90, middle, last)]
    for content in [*damaged, foreign.read_bytes()]:
        path.write_bytes(content)
        await check_rebuilt(restarted, expected)
    path.unlink()
    await check_rebuilt(restarted, expected)
    await delete(restarted, other.document_id)
    await restarted.settled()


async def building(running: Serving) -> bool:
    """An index is being built."""
    indexes = running.server.application.indexes
    assert indexes is not None
    return indexes.builds > 0


async def is_stored(running: Serving, data: bytes) -> bool:
    """The document has a row."""
    stored = await running.server.application.library.documents(
        DEFAULT_TENANT, limit=100, after=None
    )
    return id_of(data) in {document.document_id for document in stored}


async def test_a_document_deleted_while_generate_indexes_it_leaves_nothing(
    restarted: Serving,
) -> None:
    kept = sorted(files(restarted))
    stored = await store(restarted, LONG)
    index_file(restarted, LONG).unlink()
    forget(restarted, LONG)
    request = pb.GenerateRequest(document_ids=[stored.document_id], task=FEE)
    generating = asyncio.create_task(collect(restarted.inference.Generate(request)))
    await until(lambda: building(restarted))
    await delete(restarted, stored.document_id)
    _, refusal = await generating
    assert refusal is not None
    assert refusal.reason == "DOCUMENT_MISSING"
    assert sorted(files(restarted)) == kept
    await restarted.settled()


async def test_a_document_deleted_while_its_upload_is_indexed_leaves_nothing(
    restarted: Serving,
) -> None:
    kept, data = sorted(files(restarted)), LONG + b"once more\n"
    uploading = asyncio.create_task(upload(restarted, whole(data)))
    await until(lambda: is_stored(restarted, data))
    await delete(restarted, id_of(data))
    await uploading
    assert sorted(files(restarted)) == kept
    await restarted.settled()


@pytest.mark.parametrize("delay_ms", [0, 5, 10, 20, 40, 80])
async def test_deletion_at_any_moment_gives_an_answer_or_a_name(
    restarted: Serving, delay_ms: int
) -> None:
    kept, data = sorted(files(restarted)), b"Nothing is for ever. The fee is 4 euros."
    stored = await store(restarted, data)
    request = pb.GenerateRequest(document_ids=[stored.document_id], task=FEE)
    generating = asyncio.create_task(collect(restarted.inference.Generate(request)))
    await asyncio.sleep(delay_ms / 1000)
    await delete(restarted, stored.document_id)
    events, refusal = await generating
    if refusal is None:
        assert Answer(events).completed.documents[0].document_id == stored.document_id
    else:
        assert refusal.reason == "DOCUMENT_MISSING"
    assert sorted(files(restarted)) == kept
    await restarted.settled()


async def test_content_that_somebody_removed_is_a_missing_document(restarted: Serving) -> None:
    data = b"Gone by tomorrow."
    stored = await store(restarted, data)
    for path in index_file(restarted, data).parent.iterdir():
        path.unlink()
    shutil.rmtree(index_parent(restarted, data))
    forget(restarted, data)
    with pytest.raises(grpc.aio.AioRpcError) as by_read:
        await read(restarted, stored.document_id)
    request = pb.GenerateRequest(document_ids=[stored.document_id], task=FEE)
    _, by_generate = await collect(restarted.inference.Generate(request))
    assert Refusal.of(by_read.value).reason == "DOCUMENT_MISSING"
    assert by_generate is not None
    assert by_generate.reason == "DOCUMENT_MISSING"
    await store(restarted, data)
    assert await read(restarted, stored.document_id) == data
    await delete(restarted, stored.document_id)
    await restarted.settled()


def index_parent(running: Serving, data: bytes) -> Path:
    """The folder of a document's files."""
    sha256 = hashlib.sha256(data).hexdigest()
    [folder] = running.config.data_dir.glob(f"documents/*/{sha256[:2]}")
    return folder
