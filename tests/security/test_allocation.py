"""No request makes the server take much more memory than the request has bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import inference_service_pb2 as pb
from longspan.v1 import upload_pb2
from tests.security.decoder_server import NOW, PEAK, Watched, watched
from tests.security.raw_messages import member, varint

GENERATE = "/longspan.v1.InferenceService/Generate"
ANALYZE = "/longspan.v1.InferenceService/Analyze"
UPLOAD = "/longspan.v1.DocumentService/Upload"
LIST = "/longspan.v1.DocumentService/ListDocuments"
GET = "/longspan.v1.DocumentService/GetDocument"
READ = "/longspan.v1.DocumentService/ReadDocument"

MIB = 1 << 20
# As much as a message may have.
MUCH = 2 * MIB
HUGE = 2**63 - 1
BOMB_BYTES = 256 * MIB
# What any call may take, such as a database opened or code loaded, and how often each byte may lie
# somewhere: in gRPC, in protobuf, in Python.
ANY_CALL = 24 * MIB
EACH_BYTE = 24


def many(one: bytes) -> bytes:
    """As many as fit."""
    return one * ((MUCH - 1000) // len(one))


def options(content: bytes) -> bytes:
    """A request for an answer, with these options."""
    task = pb.Task(prompt=pb.Prompt(text="Go on.")).SerializeToString()
    task += member(pb.Task, "generation", content)
    return member(pb.GenerateRequest, "document_ids", b"doc_x") + member(
        pb.GenerateRequest, "task", task
    )


def task(**fields: Any) -> bytes:
    """A request for an answer to this task."""
    return pb.GenerateRequest(document_ids=["doc_x"], task=pb.Task(**fields)).SerializeToString()


def upload(**fields: Any) -> bytes:
    """A message of an upload."""
    return docs.UploadRequest(**fields).SerializeToString()


GENERATION = pb.GenerationOptions
MESSAGES: dict[str, tuple[str, bytes]] = {
    "empty ids": (GENERATE, many(member(pb.GenerateRequest, "document_ids", b""))),
    "short ids": (GENERATE, many(member(pb.GenerateRequest, "document_ids", b"x"))),
    "a long id": (GET, docs.GetDocumentRequest(document_id="x" * (MUCH - 99)).SerializeToString()),
    "a long question": (GENERATE, task(ask=pb.Ask(question="x" * (MUCH - 99)))),
    "a question of wide letters": (GENERATE, task(ask=pb.Ask(question="😀" * (MUCH // 4 - 99)))),
    "empty stops": (GENERATE, options(many(member(GENERATION, "stop", b"")))),
    "stops": (GENERATE, options(many(member(GENERATION, "stop", b"\x0a\x01x")))),
    "a long schema": (GENERATE, options(member(GENERATION, "json_schema", b"x" * (MUCH - 999)))),
    "a deep schema": (
        GENERATE,
        options(member(GENERATION, "json_schema", b'{"not":' * (MUCH // 7 - 999))),
    ),
    "a less deep schema": (
        GENERATE,
        options(member(GENERATION, "json_schema", b'{"not":' * 2000 + b"true" + b"}" * 2000)),
    ),
    "a schema of many parts": (
        GENERATE,
        options(member(GENERATION, "json_schema", b'{"enum":[' + b'"",' * 5000 + b'""]}')),
    ),
    "a nested repetition": (
        GENERATE,
        options(member(GENERATION, "regex", b"(((a{999}){999}){9})")),
    ),
    "unknown numbers": (GENERATE, many(varint(1000 << 3) + b"\x01")),
    "unknown texts": (GENERATE, many(varint(1000 << 3 | 2) + b"\x00")),
    "deep groups": (GENERATE, many(varint(15 << 3 | 3))),
    "deep messages": (ANALYZE, b"\x0a\x7f" * 1000),
    "a large page": (LIST, docs.ListDocumentsRequest(page_size=2**31 - 1).SerializeToString()),
    "a long token": (LIST, docs.ListDocumentsRequest(page_token="x" * MUCH).SerializeToString()),
    "a large range": (READ, member(docs.ReadDocumentRequest, "span", b"\x10" + varint(HUGE))),
    "many citations": (GENERATE, task(ask=pb.Ask(question="?", max_citations=2**31 - 1))),
    "many tokens": (
        GENERATE,
        task(prompt=pb.Prompt(text="?"), generation=pb.GenerationOptions(max_tokens=2**31 - 1)),
    ),
    "a large upload": (UPLOAD, upload(header=upload_pb2.UploadHeader(declared_bytes=HUGE))),
    "a long title": (UPLOAD, upload(header=upload_pb2.UploadHeader(title="x" * (MUCH - 99)))),
    "a far chunk": (UPLOAD, upload(chunk=upload_pb2.Chunk(offset=HUGE, data=b"x"))),
    "a long commit": (UPLOAD, upload(commit=upload_pb2.Commit(length=HUGE, sha256="x" * MUCH))),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One for all tests, which has served before."""
    with watched(tmp_path_factory.mktemp("watched")) as running:
        with grpc.insecure_channel(running.target) as channel:
            for name in ("a large page", "a large upload", "a schema of many parts"):
                said(channel, *MESSAGES[name])
        yield running


def said(channel: grpc.Channel, path: str, message: bytes) -> grpc.StatusCode:
    """How a call ends that sends this message and no more."""
    call: Any = channel.stream_stream(path)
    try:
        for _ in call(iter([message]), timeout=60):
            pass
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
}


@pytest.mark.parametrize("name", MESSAGES)
def test_memory_follows_the_message(server: Watched, name: str) -> None:
    path, message = MESSAGES[name]
    server.forget_peak()
    before = server.memory(NOW)
    with grpc.insecure_channel(server.target) as channel:
        assert said(channel, path, message) in REFUSED
    assert server.memory(PEAK) - before < ANY_CALL + EACH_BYTE * len(message)


@pytest.mark.parametrize("path", [GENERATE, UPLOAD])
def test_a_bomb_is_not_unpacked(server: Watched, path: str) -> None:
    """A quarter of a gigabyte of zeros, which is small on the wire."""
    server.forget_peak()
    before = server.memory(NOW)
    with grpc.insecure_channel(server.target, compression=grpc.Compression.Gzip) as channel:
        assert said(channel, path, bytes(BOMB_BYTES)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.memory(PEAK) - before < ANY_CALL


def test_many_large_messages_at_once_lie_there_twice_at_most(server: Watched) -> None:
    streams = 200
    server.forget_peak()
    before = server.memory(NOW)
    message = upload(chunk=upload_pb2.Chunk(data=bytes(MUCH - 99)))
    with grpc.insecure_channel(server.target) as channel:
        call: Any = channel.stream_stream(UPLOAD)
        calls = [call(iter([message]), timeout=60) for _ in range(streams)]
        assert {one.code() for one in calls} <= REFUSED
    assert server.memory(PEAK) - before < ANY_CALL + 2 * streams * MUCH
