"""Everything a caller can get wrong: told by name, nothing lost, nothing left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from longspan.server.limits import Limits
from longspan.v1 import document_service_pb2 as documents_pb
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.raw_calls import (
    Refusal,
    analyze,
    analyze_messages,
    ask,
    check_resumes,
    chunk,
    collect,
    commit,
    header,
    open_uploads,
    read,
    refused,
    store,
    summarize,
    upload,
    whole,
)
from tests.support.serving import Serving, serving
from tests.worker.models import skip_without_embedded

pytestmark = pytest.mark.asyncio(loop_scope="module")

Code = grpc.StatusCode
TEXT = "Grüße aus Zürich, 你好. ".encode() * 40
LIMITS = Limits(
    chunk_bytes=4096, document_bytes=20_000, question_bytes=4000, title_bytes=60, list_page=50
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """Small limits and the real model."""
    skip_without_embedded()
    async with serving(tmp_path_factory.mktemp("data"), limits=LIMITS) as running:
        yield running


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_left_behind(server: Serving) -> AsyncIterator[None]:
    yield
    await server.settled()


async def check_refused(
    serving: Serving, messages: list[Any], code: Code, reason: str, *, resumable_at: int | None
) -> Refusal:
    """Refused as said; afterwards the upload is gone, or can be finished with TEXT."""
    before = await open_uploads(serving)
    events, refusal = await upload(serving, messages)
    assert refusal is not None, events
    assert (refusal.code, refusal.reason) == (code, reason), refusal
    assert refusal.message
    assert "Traceback" not in refusal.message
    await serving.settled()
    left = await open_uploads(serving) - before
    assert left == (0 if resumable_at is None else 1)
    if resumable_at is not None:
        await check_resumes(serving, events[0].accepted.upload_id, resumable_at, TEXT)
    return refusal


BAD_TEXT = [
    (b"ok\xffno", [], 2),
    (b"\x80", [], 0),
    (b"caf\xc3", [], 3),
    ("ab€".encode()[:-1], [], 2),
    ("ab€".encode()[:-1] + b"x", [3, 4], 2),
    (b"abc\xed\xa0\x80", [4, 5], 3),
    (b"x" * 4096 + b"\xf0\x9f\x98", [4096, 4097, 4098], 4096),
    (b"over\xc0\xaflong", [5], 4),
]


@pytest.mark.parametrize(("data", "cuts", "at"), BAD_TEXT, ids=range(len(BAD_TEXT)))
async def test_bytes_that_are_no_text_are_refused_at_their_offset(
    server: Serving, data: bytes, cuts: list[int], at: int
) -> None:
    refusal = await check_refused(
        server, whole(data, cuts), Code.INVALID_ARGUMENT, "INVALID_UTF8", resumable_at=None
    )
    assert refusal.metadata["byte_offset"] == str(at)
    assert f"byte {at}" in refusal.message
    events, refused_too = await analyze(server, analyze_messages(whole(data, cuts), summarize()))
    assert refused_too == refusal
    assert not any(event.HasField("delta") for event in events)


HALF = 500
OUT_OF_ORDER = [
    (chunk(HALF + 1, b"x"), {"expected": "500", "actual": "501"}, "gap"),
    (chunk(HALF - 1, b"xyz"), {"expected": "500", "actual": "499"}, "overlap"),
]


@pytest.mark.parametrize(("bad", "metadata", "word"), OUT_OF_ORDER, ids=["gap", "overlap"])
async def test_a_chunk_out_of_order_is_refused_and_the_upload_stays(
    server: Serving, bad: Any, metadata: dict[str, str], word: str
) -> None:
    refusal = await check_refused(
        server,
        [header(), chunk(0, TEXT[:HALF]), bad],
        Code.OUT_OF_RANGE,
        "CHUNK_OUT_OF_ORDER",
        resumable_at=HALF,
    )
    assert refusal.metadata == metadata
    assert word in refusal.message


async def test_a_chunk_sent_twice_is_fine(server: Serving) -> None:
    messages = whole(TEXT, [HALF])
    messages[2:2] = [chunk(0, TEXT[:HALF]), chunk(7, TEXT[7:90])]
    events, refusal = await upload(server, messages)
    assert refusal is None
    assert await read(server, events[-1].stored.document.document_id) == TEXT


async def test_a_chunk_sent_again_with_other_bytes_is_a_conflict(server: Serving) -> None:
    messages = [header(), chunk(0, TEXT[:HALF]), chunk(10, b"other")]
    refusal = await check_refused(
        server, messages, Code.INVALID_ARGUMENT, "CHUNK_CONFLICT", resumable_at=HALF
    )
    assert "10" in refusal.message


@pytest.mark.parametrize(
    ("bad", "reason", "field"),
    [
        (chunk(HALF, b"x" * 4097), "CHUNK_TOO_LARGE", "chunk.data"),
        (chunk(HALF, b""), "INVALID_REQUEST", "chunk"),
        (chunk(-1, b"x"), "INVALID_REQUEST", "chunk"),
        (header(), "INVALID_REQUEST", "part"),
        (documents_pb.UploadRequest(), "INVALID_REQUEST", "part"),
        (commit(TEXT), "LENGTH_MISMATCH", "commit.length"),
        (commit(TEXT, length=HALF - 1), "LENGTH_MISMATCH", "commit.length"),
        (commit(TEXT, length=HALF, sha256="abc"), "INVALID_REQUEST", "commit.sha256"),
        (commit(TEXT, length=HALF, sha256="F" * 64), "INVALID_REQUEST", "commit.sha256"),
        (commit(TEXT, length=HALF, sha256=""), "INVALID_REQUEST", "commit.sha256"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_malformed_part_is_refused_and_the_upload_stays(
    server: Serving, bad: Any, reason: str, field: str
) -> None:
    refusal = await check_refused(
        server,
        [header(), chunk(0, TEXT[:HALF]), bad],
        Code.INVALID_ARGUMENT,
        reason,
        resumable_at=HALF,
    )
    assert refusal.metadata["field"] == field


async def test_a_message_over_the_transport_limit_is_refused_by_the_transport(
    server: Serving,
) -> None:
    size = server.config.limits.message_bytes + 1
    messages = [header(), chunk(0, TEXT[:HALF]), chunk(HALF, b"x" * size)]
    events, refusal = await upload(server, messages)
    assert refusal is not None
    assert refusal.code is Code.RESOURCE_EXHAUSTED
    await server.settled()
    await check_resumes(server, events[0].accepted.upload_id, HALF, TEXT)


async def test_a_wrong_digest_discards_the_upload(server: Serving) -> None:
    messages = [header(), chunk(0, TEXT), commit(TEXT, sha256="0" * 64)]
    refusal = await check_refused(
        server, messages, Code.DATA_LOSS, "DIGEST_MISMATCH", resumable_at=None
    )
    assert "0" * 64 in refusal.message


async def test_an_end_without_commit_is_resumable(server: Serving) -> None:
    messages = [header(), chunk(0, TEXT[:HALF])]
    refusal = await check_refused(
        server, messages, Code.ABORTED, "UPLOAD_INCOMPLETE", resumable_at=HALF
    )
    assert refusal.metadata["committed_bytes"] == str(HALF)
    assert refusal.metadata["upload_id"] in refusal.message


@pytest.mark.parametrize(
    ("messages", "reason", "field"),
    [
        ([], "INVALID_REQUEST", "part"),
        ([chunk(0, TEXT)], "INVALID_REQUEST", "part"),
        ([commit(TEXT)], "INVALID_REQUEST", "part"),
        ([header(declared_bytes=20_001)], "DOCUMENT_TOO_LARGE", "header.declared_bytes"),
        ([header(declared_bytes=0)], "INVALID_REQUEST", "header.declared_bytes"),
        ([header(declared_bytes=-5)], "INVALID_REQUEST", "header.declared_bytes"),
        ([header(media_type="application/pdf")], "INVALID_REQUEST", "header.media_type"),
        ([header(title="ü" * 31)], "INVALID_REQUEST", "header.title"),
    ],
    ids=["nothing", "chunk", "commit", "declared", "zero", "negative", "media", "title"],
)
async def test_a_bad_opening_leaves_nothing(
    server: Serving, messages: list[Any], reason: str, field: str
) -> None:
    refusal = await check_refused(
        server, messages, Code.INVALID_ARGUMENT, reason, resumable_at=None
    )
    assert refusal.metadata["field"] == field
    _, refused_too = await analyze(server, analyze_messages(messages, summarize()))
    assert refused_too == refusal


async def test_an_empty_document_is_refused(server: Serving) -> None:
    refusal = await refused(server, [header(), commit(b"")])
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "EMPTY_DOCUMENT")
    await server.settled()


async def test_a_document_over_the_limit_is_refused_where_it_crosses_it(server: Serving) -> None:
    data = b"x" * 20_001
    refusal = await refused(server, whole(data, range(4096, len(data), 4096)))
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "DOCUMENT_TOO_LARGE")
    assert "20000" in refusal.message


async def test_more_than_was_declared_is_refused(server: Serving) -> None:
    messages = [header(declared_bytes=HALF), chunk(0, TEXT[:HALF]), chunk(HALF, b"x")]
    refusal = await refused(server, messages)
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "LENGTH_MISMATCH")
    assert "500 declared" in refusal.message


@pytest.mark.parametrize("upload_id", ["up_0", "../../catalog", "x" * 300, "\x00", "'; --"])
async def test_an_unknown_upload_is_named(server: Serving, upload_id: str) -> None:
    refusal = await refused(server, [header(upload_id=upload_id), *whole(TEXT)[1:]])
    assert (refusal.code, refusal.reason) == (Code.NOT_FOUND, "UPLOAD_MISSING")


async def test_a_finished_upload_tells_its_document_again(server: Serving) -> None:
    events, _ = await upload(server, whole(TEXT))
    again = header(upload_id=events[0].accepted.upload_id)
    replayed, refusal = await upload(server, [again, chunk(0, TEXT[:40]), commit(TEXT)])
    assert refusal is None
    assert replayed[0].accepted.committed_bytes == len(TEXT)
    assert replayed[-1].stored == events[-1].stored
    for bad, reason in [
        (chunk(0, b"other"), "CHUNK_CONFLICT"),
        (chunk(len(TEXT), b"beyond"), "CHUNK_CONFLICT"),
        (chunk(len(TEXT) + 7, b"beyond"), "CHUNK_CONFLICT"),
        (chunk(-3, b"before"), "INVALID_REQUEST"),
        (chunk(0, b""), "INVALID_REQUEST"),
        (commit(TEXT, length=3), "LENGTH_MISMATCH"),
        (commit(TEXT, sha256="0" * 64), "DIGEST_MISMATCH"),
    ]:
        assert (await refused(server, [again, bad])).reason == reason
    assert await read(server, events[-1].stored.document.document_id) == TEXT


MISSING = "doc_0123456789"


async def test_an_unknown_document_is_named_by_every_call(server: Serving) -> None:
    get = documents_pb.GetDocumentRequest(document_id=MISSING)
    delete = documents_pb.DeleteDocumentRequest(document_id=MISSING)
    with pytest.raises(grpc.aio.AioRpcError) as by_get:
        await server.documents.GetDocument(get)
    with pytest.raises(grpc.aio.AioRpcError) as by_delete:
        await server.documents.DeleteDocument(delete)
    with pytest.raises(grpc.aio.AioRpcError) as by_read:
        await read(server, MISSING)
    request = pb.GenerateRequest(document_ids=[MISSING], task=summarize())
    _, by_generate = await collect(server.inference.Generate(request))
    refusals = [Refusal.of(error.value) for error in (by_get, by_delete, by_read)]
    for refusal in [*refusals, by_generate]:
        assert refusal is not None
        assert (refusal.code, refusal.reason) == (Code.NOT_FOUND, "DOCUMENT_MISSING")
        assert MISSING in refusal.message


TASKS = [
    (pb.Task(), "INVALID_REQUEST", "task"),
    (ask(""), "INVALID_REQUEST", "task.ask.question"),
    (ask(" \n\t"), "INVALID_REQUEST", "task.ask.question"),
    (ask("\x00\x01"), "INVALID_REQUEST", "task.ask.question"),
    (ask("why " * 300), "QUESTION_TOO_LONG", "task.ask.question"),
    (ask("x" * 4001), "INVALID_REQUEST", "task.ask.question"),
    (ask("why", max_citations=21), "INVALID_REQUEST", "task.ask.max_citations"),
    (ask("why", max_citations=-1), "INVALID_REQUEST", "task.ask.max_citations"),
    (summarize(51), "INVALID_REQUEST", "task.summarize.max_sentences"),
    (summarize(-7), "INVALID_REQUEST", "task.summarize.max_sentences"),
    (pb.Task(prompt=pb.Prompt(text="")), "INVALID_REQUEST", "task.prompt.text"),
]


@pytest.mark.parametrize(("task", "reason", "field"), TASKS, ids=range(len(TASKS)))
async def test_a_bad_task_is_refused_before_a_byte_is_taken(
    server: Serving, task: pb.Task, reason: str, field: str
) -> None:
    before = await open_uploads(server)
    events, refusal = await analyze(server, analyze_messages(whole(TEXT), task))
    assert refusal is not None
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, reason), refusal
    assert refusal.metadata["field"] == field
    assert events == []
    assert await open_uploads(server) == before


async def test_a_priority_out_of_range_is_refused(server: Serving) -> None:
    request = pb.GenerateRequest(document_ids=[MISSING])
    # The wire carries any number; 9 is no priority.
    request.task.MergeFromString(ask("why").SerializeToString() + bytes([5 << 3, 9]))
    _, refusal = await collect(server.inference.Generate(request))
    assert refusal is not None
    assert (refusal.code, refusal.metadata) == (Code.INVALID_ARGUMENT, {"field": "task.priority"})


async def test_a_prompt_without_a_decoder_says_what_to_do(server: Serving) -> None:
    task = pb.Task(prompt=pb.Prompt(text="write a poem"))
    events, refusal = await analyze(server, analyze_messages(whole(TEXT), task))
    assert events == []
    assert refusal is not None
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "DECODER_REQUIRED")
    assert "Start a server with a decoder" in refusal.message


@pytest.mark.parametrize(
    "ids",
    [[], ["doc_1", "doc_1"], [f"doc_{number}" for number in range(33)]],
    ids=["none", "twice", "too many"],
)
async def test_bad_document_ids_are_refused(server: Serving, ids: list[str]) -> None:
    request = pb.GenerateRequest(document_ids=ids, task=summarize())
    _, refusal = await collect(server.inference.Generate(request))
    assert refusal is not None
    assert (refusal.code, refusal.metadata) == (Code.INVALID_ARGUMENT, {"field": "document_ids"})
    assert "1 to 32" in refusal.message


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 51}, "page_size"),
        ({"page_token": "nonsense"}, "page_token"),
        ({"page_token": "0x1p9999_x"}, "page_token"),
        ({"page_token": "nan_x"}, "page_token"),
    ],
    ids=str,
)
async def test_a_bad_page_is_refused(
    server: Serving, request_fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await server.documents.ListDocuments(documents_pb.ListDocumentsRequest(**request_fields))
    refusal = Refusal.of(error.value)
    assert (refusal.code, refusal.metadata) == (Code.INVALID_ARGUMENT, {"field": field})


@pytest.mark.parametrize(
    ("start", "end"), [(-1, 5), (5, 4), (0, 10**6), (10**6, 0), (0, -2), (2**62, 2**62)]
)
async def test_a_bad_span_is_refused(server: Serving, start: int, end: int) -> None:
    document = await store(server, TEXT)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await read(server, document.document_id, start, end)
    refusal = Refusal.of(error.value)
    assert (refusal.code, refusal.metadata) == (Code.INVALID_ARGUMENT, {"field": "span"})


async def test_strange_titles_are_kept(server: Serving) -> None:
    for title in ["../../etc/passwd", "a\x00b", "Zoë 🦜 \u202e", "'; DROP TABLE documents; --"]:
        document = await store(server, TEXT + title.encode(), title=title)
        get = documents_pb.GetDocumentRequest(document_id=document.document_id)
        assert (await server.documents.GetDocument(get)).document.title == title


async def test_bytes_that_are_no_message_are_refused(server: Serving) -> None:
    call: Any = server.channel.stream_stream("/longspan.v1.DocumentService/Upload")
    _, refusal = await collect(call(iter([b"\xff\xff\xff"])))
    assert refusal is not None
    assert refusal.code in (Code.INTERNAL, Code.INVALID_ARGUMENT)
    assert "Traceback" not in refusal.message
