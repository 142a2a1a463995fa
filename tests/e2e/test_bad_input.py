"""Everything a caller can get wrong: told by name, nothing lost, nothing left behind."""

from __future__ import annotations

import asyncio
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from longspan.server.limits import Limits
from longspan.v1 import document_service_pb2 as documents_pb
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.raw_calls import (
    Answer,
    Metadata,
    Refusal,
    analyze,
    analyze_messages,
    ask,
    chunk,
    collect,
    commit,
    generate,
    header,
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


async def open_uploads(serving: Serving) -> int:
    """Uploads that can be resumed."""
    return await serving.server.application.library.count_uploads()


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
        await check_resumes(serving, events[0].accepted.upload_id, resumable_at)
    return refusal


async def check_resumes(serving: Serving, upload_id: str, at: int) -> None:
    """The upload goes on at byte ``at`` and ends as TEXT."""
    messages = [header(upload_id=upload_id), chunk(at, TEXT[at:]), commit(TEXT)]
    if at == len(TEXT):
        del messages[1]
    events, refusal = await upload(serving, messages)
    assert refusal is None, refusal
    assert events[0].accepted.committed_bytes == at
    document_id = events[-1].stored.document.document_id
    assert await read(serving, document_id) == TEXT
    request = documents_pb.DeleteDocumentRequest(document_id=document_id)
    await serving.documents.DeleteDocument(request)


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
    await check_resumes(server, events[0].accepted.upload_id, HALF)


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


STRANGE = {
    "control tokens": b"Terms apply. <|im_end|> <|endoftext|> [SEP] [CLS] The fee is 3 euros.",
    "nul": b"The fee\x00 is 3 euros.\x00\x00 Nothing more.",
    "byte order mark": b"\xef\xbb\xbfThe fee is 3 euros. It is due on Monday.",
    "one character": b"x",
    "crlf": b"# Fees\r\n\r\nThe fee is 3 euros.\r\nIt is due.\r\n",
    "one line": b"the fee is 3 euros and " * 800,
    "no spaces": b"fee" * 6000,
    "emoji": "🦜👩‍👩‍👧".encode() * 300,
    "combining": ("e" + "\u0301" * 500).encode(),
    "right to left": "רסיס מים. הסכום הוא 3.".encode(),
}


@pytest.mark.parametrize("name", STRANGE)
async def test_strange_documents_are_quoted_to_the_byte(server: Serving, name: str) -> None:
    content = STRANGE[name]
    document = await store(server, content)
    assert document.size_chars == len(content.decode())
    assert await read(server, document.document_id) == content
    for task in (summarize(3), ask("What is the fee?")):
        answer = await generate(server, [document.document_id], task)
        assert len(answer.text.splitlines()) == len(answer.citations)
        for citation in answer.citations:
            assert citation.quote.encode() == content[citation.span.start : citation.span.end]
    if name != "one character":
        assert (await generate(server, [document.document_id], summarize())).citations


@pytest.mark.parametrize("content", [b" \n\t\r\n ", "\u3000\u2028\u00a0".encode(), b"\n"])
async def test_a_document_of_white_space_holds_no_answer(server: Serving, content: bytes) -> None:
    for task in (summarize(), ask("why")):
        events, refusal = await analyze(server, analyze_messages(whole(content), task))
        assert refusal is None
        answer = Answer(events)
        assert answer.completed.finish_reason == pb.FINISH_REASON_NO_ANSWER
        assert (answer.text, answer.citations) == ("", [])


async def test_bytes_that_are_no_message_are_refused(server: Serving) -> None:
    call: Any = server.channel.stream_stream("/longspan.v1.DocumentService/Upload")
    _, refusal = await collect(call(iter([b"\xff\xff\xff"])))
    assert refusal is not None
    assert refusal.code in (Code.INTERNAL, Code.INVALID_ARGUMENT)
    assert "Traceback" not in refusal.message


TENANTS = {"trust_tenant_metadata": True, "encoder": "none"}


def tenant(name: str) -> Metadata:
    """Call metadata."""
    return (("longspan-tenant", name),)


async def test_a_tenant_sees_nothing_of_another(tmp_path: Path) -> None:
    async with serving(tmp_path, **TENANTS) as running:
        document = await store(running, TEXT, tenant("acme"))
        other = await store(running, TEXT, tenant("other"))
        assert other.document_id != document.document_id
        events, _ = await upload(running, [header(), chunk(0, TEXT[:9])], tenant("acme"))
        upload_id = events[0].accepted.upload_id
        _, stolen = await upload(running, [header(upload_id=upload_id)], tenant("other"))
        assert stolen is not None
        assert (stolen.code, stolen.reason) == (Code.NOT_FOUND, "UPLOAD_MISSING")
        get = documents_pb.GetDocumentRequest(document_id=document.document_id)
        delete = documents_pb.DeleteDocumentRequest(document_id=document.document_id)
        for call in (
            running.documents.GetDocument(get, metadata=tenant("other")),
            running.documents.DeleteDocument(delete, metadata=tenant("other")),
            running.documents.GetDocument(get),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert Refusal.of(error.value).reason == "DOCUMENT_MISSING"
        listed = await running.documents.ListDocuments(
            documents_pb.ListDocumentsRequest(), metadata=tenant("acme")
        )
        assert [one.document_id for one in listed.documents] == [document.document_id]


@pytest.mark.parametrize("name", ["", "-x", "a/b", "x" * 65, "a b"])
async def test_a_malformed_tenant_is_refused(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, **TENANTS) as running:
        call: Any = running.documents.Upload(waiting_messages(), metadata=tenant(name))
        _, refusal = await collect(call)
        assert refusal is not None
        assert (refusal.code, refusal.metadata) == (
            Code.INVALID_ARGUMENT,
            {"field": "longspan-tenant"},
        )


async def waiting_messages(*messages: Any) -> AsyncIterator[Any]:
    """These messages, then silence."""
    for message in messages:
        yield message
    await asyncio.sleep(60)


async def test_a_client_that_falls_silent_is_ended_and_can_resume(tmp_path: Path) -> None:
    limits = Limits(chunk_wait_s=0.3)
    async with serving(tmp_path, encoder="none", limits=limits) as running:
        messages = waiting_messages(header(), chunk(0, TEXT[:HALF]))
        events, refusal = await collect(running.documents.Upload(messages))
        assert refusal is not None
        assert (refusal.code, refusal.reason) == (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        assert "0.3 s" in refusal.message
        await running.settled()
        await check_resumes(running, events[0].accepted.upload_id, HALF)
        _, silent = await collect(running.documents.Upload(waiting_messages()))
        assert silent is not None
        assert silent.code is Code.DEADLINE_EXCEEDED
        assert await open_uploads(running) == 0


async def test_a_request_too_many_is_refused_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none", limits=Limits(requests=2)) as running:
        held = [running.documents.Upload(waiting_messages(header())) for _ in range(2)]
        for call in held:
            first = await call.read()
            assert isinstance(first, documents_pb.UploadResponse)
            assert first.HasField("accepted")
        started_s = time.monotonic()
        _, refusal = await collect(running.documents.Upload(waiting_messages()))
        assert time.monotonic() - started_s < 0.1
        assert refusal is not None
        assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert refusal.retry_after_s == 1.0
        for call in held:
            call.cancel()
        await running.settled()
        await store(running, TEXT)


async def test_a_floor_of_free_space_refuses_new_bytes(tmp_path: Path) -> None:
    free_bytes = shutil.disk_usage(tmp_path).free
    limits = Limits(free_space_bytes=free_bytes * 2)
    async with serving(tmp_path, encoder="none", limits=limits) as running:
        refusal = await refused(running, whole(TEXT))
        assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "DISK_FULL")
        assert refusal.retry_after_s == 30.0


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; skips the test where mounting is not permitted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not permitted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def check_full_disk(folder: Path, ballast: Path, fill: Any) -> None:
    """Upload until the disk is full, make room, resume, and read everything back."""
    data = bytes(range(32, 127)) * 30_000
    edges = list(range(0, len(data), 100_000))
    chunks = [chunk(start, data[start : start + 100_000]) for start in edges]
    async with serving(folder, encoder="none", limits=Limits(free_space_bytes=0)) as running:
        fill(ballast)
        events, refusal = await upload(running, [header(), *chunks, commit(data)])
        assert refusal is not None
        assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "DISK_FULL"), refusal
        assert refusal.retry_after_s == 30.0
        await running.settled()
        acked = max(event.ack.committed_bytes for event in events)
        await asyncio.to_thread(ballast.unlink)
        resuming = [header(upload_id=events[0].accepted.upload_id)]
        resumed, refusal = await upload(running, resuming)
        kept = resumed[0].accepted.committed_bytes
        assert refusal is not None
        assert acked <= kept < len(data)
        rest = [chunk(kept, data[kept : kept + 500_000])]
        position = kept + 500_000
        while position < len(data):
            rest.append(chunk(position, data[position : position + 500_000]))
            position += 500_000
        events, refusal = await upload(running, [*resuming, *rest, commit(data)])
        assert refusal is None, refusal
        assert await read(running, events[-1].stored.document.document_id) == data


async def test_a_full_disk_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    def fill(ballast: Path) -> None:
        free_bytes = shutil.disk_usage(tmp_path).free
        ballast.write_bytes(b"x" * (free_bytes - 1_500_000))

    with small_disk(tmp_path, "8m"):
        await check_full_disk(tmp_path, tmp_path / "ballast", fill)


def write_for_ever(path: Path) -> None:
    """Fill the disk to its last block."""
    with path.open("wb", buffering=0) as ballast:
        while ballast.write(b"x" * 4096):
            pass


async def test_a_document_can_be_deleted_from_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path, "8m"):
        async with serving(tmp_path, encoder="none", limits=Limits(free_space_bytes=0)) as running:
            document = await store(running, b"x" * 1_000_000)
            with pytest.raises(OSError, match="No space"):
                write_for_ever(tmp_path / "ballast")
            refusal = await refused(running, whole(TEXT))
            assert refusal.reason == "DISK_FULL"
            delete = documents_pb.DeleteDocumentRequest(document_id=document.document_id)
            await running.documents.DeleteDocument(delete)
            await store(running, TEXT)


def index_files(folder: Path) -> list[Path]:
    """Index files, and what is left of them."""
    return [*folder.rglob("*.index"), *folder.rglob("*.tmp")]


async def test_an_index_that_finds_no_room_costs_no_answer(tmp_path: Path) -> None:
    skip_without_embedded()
    content = b"The fee is 3 euros. It is due on Monday. " * 200
    with small_disk(tmp_path, "8m"):
        async with serving(tmp_path, limits=Limits(free_space_bytes=0)) as running:
            free_bytes = shutil.disk_usage(tmp_path).free
            (tmp_path / "ballast").write_bytes(b"x" * (free_bytes - len(content) - 48_000))
            document = await store(running, content)
            answer = await generate(running, [document.document_id], ask("What is the fee?"))
            assert answer.citations
            assert index_files(tmp_path) == [], "the disk was not full"


SEND_BOMB = """
import sys, grpc
with grpc.insecure_channel(sys.argv[1], compression=grpc.Compression.Gzip) as channel:
    call = channel.stream_stream("/longspan.v1.DocumentService/Upload")
    try:
        list(call(iter([bytes(200 << 20)])))
    except grpc.RpcError as error:
        print(error.code().name)
"""


async def test_a_compressed_bomb_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none") as running:
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sender = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SEND_BOMB, running.target, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await sender.communicate()
        assert said.decode().strip() == "RESOURCE_EXHAUSTED"
        grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib) / 1024
        assert grown_mib < 64
        await store(running, TEXT)
