"""A client that breaks every rule of an upload, at random, over a real socket.

The server's answers are compared with a byte array: what is refused changes nothing, what is
kept is kept in order, and the document is what was sent or does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from longspan.v1 import document_pb2, document_service_pb2_grpc
from longspan.v1 import document_service_pb2 as docs
from tests.e2e.raw_calls import Refusal, chunk, commit, header
from tests.support.process import ServerProcess

CHUNK_BYTES = 64
DOCUMENT_BYTES = 600
FLAGS: tuple[str, ...] = ("--encoder", "none", "--limits.chunk-bytes", str(CHUNK_BYTES))
FLAGS += ("--limits.document-bytes", str(DOCUMENT_BYTES))
PIECES = st.binary(min_size=1, max_size=CHUNK_BYTES).map(lambda data: bytes(b & 127 for b in data))


class BreaksRules(RuleBasedStateMachine):
    """Each rule is one stream that goes on with the upload and ends it somehow."""

    stub: Any

    def __init__(self) -> None:
        super().__init__()
        self.kept = b""
        self.upload_id = ""
        self.stored: dict[str, bytes] = {}

    def stream(self, *messages: docs.UploadRequest, kept: bytes) -> Refusal | None:
        """Go on with these messages; ``kept`` is what the server must have afterwards."""
        before, document, refusal = self.kept, "", None
        try:
            for event in self.stub.Upload(iter([header(upload_id=self.upload_id), *messages])):
                if event.HasField("accepted"):
                    self.upload_id = event.accepted.upload_id
                    assert event.accepted.committed_bytes == len(before)
                elif event.HasField("ack"):
                    assert len(before) < event.ack.committed_bytes <= len(kept)
                elif event.HasField("stored"):
                    document = event.stored.document.document_id
        except grpc.RpcError as error:
            refusal = Refusal.of(error)
        self.kept = kept
        if document:
            self.stored[document] = kept
        if document or not kept:
            self.kept, self.upload_id = b"", ""
        return refusal

    def refused(self, reason: str, code: StatusCode, *messages: docs.UploadRequest) -> None:
        """The last of these messages is refused, and nothing is kept of it."""
        refusal = self.stream(*messages, kept=self.kept)
        assert refusal is not None
        assert (refusal.reason, refusal.code) == (reason, code), refusal

    @rule(pieces=st.lists(PIECES, max_size=3))
    def send_and_stop(self, pieces: list[bytes]) -> None:
        kept, messages = self.kept, []
        for piece in pieces:
            if len(kept) + len(piece) <= DOCUMENT_BYTES:
                messages.append(chunk(len(kept), piece))
                kept += piece
        refusal = self.stream(*messages, kept=kept)
        assert refusal is not None
        assert refusal.reason == "UPLOAD_INCOMPLETE"

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(self.kept) - 1))
        again = self.kept[start : start + CHUNK_BYTES]
        refusal = self.stream(chunk(start, again), chunk(start, again), kept=self.kept)
        assert refusal is not None
        assert refusal.reason == "UPLOAD_INCOMPLETE"

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def send_other_bytes_again(self, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(self.kept) - 1))
        other = bytes([self.kept[start] ^ 1]) + self.kept[start + 1 : start + CHUNK_BYTES]
        self.refused("CHUNK_CONFLICT", StatusCode.INVALID_ARGUMENT, chunk(start, other))

    @rule(gap=st.integers(1, 1 << 40), piece=PIECES)
    def leave_a_gap(self, gap: int, piece: bytes) -> None:
        far = chunk(len(self.kept) + gap, piece)
        self.refused("CHUNK_OUT_OF_ORDER", StatusCode.OUT_OF_RANGE, far)

    @precondition(lambda self: self.kept)
    @rule()
    def overlap(self) -> None:
        over = chunk(len(self.kept) - 1, self.kept[-1:] + b"x")
        self.refused("CHUNK_OUT_OF_ORDER", StatusCode.OUT_OF_RANGE, over)

    @rule(more=st.integers(1, 1000))
    def send_too_large_a_chunk(self, more: int) -> None:
        large = chunk(len(self.kept), b"x" * (CHUNK_BYTES + more))
        self.refused("CHUNK_TOO_LARGE", StatusCode.INVALID_ARGUMENT, large)

    @rule(offset=st.sampled_from([-1, -(1 << 60)]))
    def send_before_the_beginning(self, offset: int) -> None:
        self.refused("INVALID_REQUEST", StatusCode.INVALID_ARGUMENT, chunk(offset, b"x"))

    @rule()
    def send_nothing(self) -> None:
        empty = chunk(len(self.kept), b"")
        self.refused("INVALID_REQUEST", StatusCode.INVALID_ARGUMENT, empty)

    @rule()
    def send_two_headers(self) -> None:
        self.refused("INVALID_REQUEST", StatusCode.INVALID_ARGUMENT, header(title="again"))

    @precondition(lambda self: len(self.kept) > DOCUMENT_BYTES - CHUNK_BYTES)
    @rule()
    def send_too_many(self) -> None:
        more = chunk(len(self.kept), b"x" * (DOCUMENT_BYTES + 1 - len(self.kept)))
        self.refused("DOCUMENT_TOO_LARGE", StatusCode.INVALID_ARGUMENT, more)

    @precondition(lambda self: self.kept)
    @rule(difference=st.integers(-3, 3).filter(bool))
    def commit_another_length(self, difference: int) -> None:
        wrong = commit(self.kept, length=len(self.kept) + difference)
        self.refused("LENGTH_MISMATCH", StatusCode.INVALID_ARGUMENT, wrong)

    @precondition(lambda self: self.kept)
    @rule()
    def commit_another_digest(self) -> None:
        refusal = self.stream(commit(self.kept, sha256="0" * 64), kept=b"")
        assert refusal is not None
        assert (refusal.reason, refusal.code) == ("DIGEST_MISMATCH", StatusCode.DATA_LOSS)

    @precondition(lambda self: self.kept)
    @rule()
    def commit_well(self) -> None:
        assert self.stream(commit(self.kept), kept=self.kept) is None
        assert not self.upload_id

    @invariant()
    def what_is_stored_is_what_was_sent(self) -> None:
        for document, data in self.stored.items():
            span = document_pb2.ByteSpan(start=0, end=0)
            request = docs.ReadDocumentRequest(document_id=document, span=span)
            assert b"".join(part.data for part in self.stub.ReadDocument(request)) == data
        self.stored.clear()


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of small limits."""
    with (
        ServerProcess.running(tmp_path_factory.mktemp("server"), *FLAGS) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield document_service_pb2_grpc.DocumentServiceStub(channel)


def test_an_upload_survives_a_client_that_breaks_every_rule(stub: Any) -> None:
    class Client(BreaksRules):
        pass

    Client.stub = stub
    run_state_machine_as_test(
        Client,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_a_new_upload_is_not_disturbed_by_what_others_did(stub: Any, tmp_path: Path) -> None:
    data = b"The fee is due."
    events = list(stub.Upload(iter([header(), chunk(0, data), commit(data)])))
    assert events[-1].stored.document.size_bytes == len(data)
