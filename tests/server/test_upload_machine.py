"""The upload state machine alone: no file, no socket, no clock."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from longspan.server.errors import (
    ChunkOutOfOrder,
    ChunkTooLarge,
    DocumentTooLarge,
    EmptyDocument,
    InvalidRequest,
    LengthMismatch,
)
from longspan.server.limits import Limits
from longspan.server.upload.machine import (
    MOVES,
    Append,
    Chunk,
    Commit,
    Compare,
    Discarded,
    Ended,
    Event,
    IllegalMove,
    Matched,
    Mismatched,
    Receiving,
    State,
    Stored,
    Suspended,
    Upload,
    Verifying,
)

LIMITS = Limits(chunk_bytes=100, document_bytes=1000)
SHA = hashlib.sha256(b"x").hexdigest()


def upload(received: int = 0, declared: int | None = None) -> Upload:
    return Upload(received=received, declared=declared, limits=LIMITS)


def state_of(machine: Upload) -> State:
    return machine.state


def test_a_plain_upload_walks_to_stored() -> None:
    machine = upload()
    assert machine.handle(Chunk(0, 60)) == Append()
    assert machine.handle(Chunk(60, 40)) == Append()
    machine.handle(Commit(100, SHA))
    assert state_of(machine) == Verifying(100, SHA)
    machine.handle(Matched())
    assert state_of(machine) == Stored(100, SHA)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Chunk(51, 10), ChunkOutOfOrder),
        (Chunk(45, 10), ChunkOutOfOrder),
        (Chunk(50, 101), ChunkTooLarge),
        (Chunk(50, 0), InvalidRequest),
        (Chunk(-1, 10), InvalidRequest),
        (Commit(49, SHA), LengthMismatch),
        (Commit(51, SHA), LengthMismatch),
        (Commit(50, SHA.upper()), InvalidRequest),
        (Commit(50, "abc"), InvalidRequest),
    ],
    ids=str,
)
def test_a_broken_rule_raises_and_changes_nothing(event: Event, error: type[Exception]) -> None:
    machine = upload(received=50)
    with pytest.raises(error):
        machine.handle(event)
    assert machine.state == Receiving(50, None)


def test_bytes_sent_again_are_compared_not_kept() -> None:
    machine = upload(received=50)
    assert machine.handle(Chunk(10, 40)) == Compare(10)
    assert machine.state == Receiving(50, None)


def test_an_empty_document_is_refused() -> None:
    with pytest.raises(EmptyDocument):
        upload().handle(Commit(0, SHA))


def test_a_document_over_the_limit_is_refused_by_its_first_byte_too_many() -> None:
    machine = upload(received=950)
    machine.handle(Chunk(950, 50))
    with pytest.raises(DocumentTooLarge):
        machine.handle(Chunk(1000, 1))


def test_more_than_was_declared_is_refused() -> None:
    machine = upload(declared=50)
    with pytest.raises(LengthMismatch):
        machine.handle(Chunk(0, 51))


def test_less_than_was_declared_is_refused() -> None:
    machine = upload(received=40, declared=50)
    with pytest.raises(LengthMismatch):
        machine.handle(Commit(40, SHA))
    assert machine.state == Receiving(40, 50)


def test_an_end_without_commit_suspends_and_a_wrong_digest_discards() -> None:
    machine = upload(received=7)
    machine.handle(Ended())
    assert machine.state == Suspended(7)
    machine = upload(received=7)
    machine.handle(Commit(7, SHA))
    machine.handle(Mismatched())
    assert machine.state == Discarded()


STATES: list[State] = [
    Receiving(5, None),
    Verifying(5, SHA),
    Suspended(5),
    Stored(5, SHA),
    Discarded(),
]
EVENTS: list[Event] = [Chunk(5, 1), Commit(5, SHA), Ended(), Matched(), Mismatched()]


@pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_move_outside_the_table_raises(state: State, event: Event) -> None:
    machine = upload()
    machine.state = state
    if type(event) in MOVES[type(state)]:
        machine.handle(event)
        assert machine.state != state
    else:
        with pytest.raises(IllegalMove):
            machine.handle(event)
        assert machine.state == state


def test_the_table_names_every_state() -> None:
    assert set(MOVES) == {type(state) for state in STATES}


class AgainstAByteArray(RuleBasedStateMachine):
    """Whatever is sent, what is kept is a prefix of the document without hole or repeat."""

    @initialize(document=st.binary(min_size=1, max_size=400))
    def start(self, document: bytes) -> None:
        self.document = document
        self.kept = bytearray()
        self.machine = upload()

    @precondition(lambda self: isinstance(self.machine.state, Receiving))
    @rule(offset=st.integers(0, 420), size=st.integers(0, 120))
    def send(self, offset: int, size: int) -> None:
        data = self.document[offset : offset + size]
        try:
            effect = self.machine.handle(Chunk(offset, len(data)))
        except (InvalidRequest, ChunkOutOfOrder):
            return
        if isinstance(effect, Append):
            self.kept += data
        else:
            assert isinstance(effect, Compare)
            assert self.kept[offset : offset + len(data)] == data

    @precondition(lambda self: isinstance(self.machine.state, Receiving))
    @rule()
    def break_off_and_resume(self) -> None:
        self.machine.handle(Ended())
        assert self.machine.state == Suspended(len(self.kept))
        self.machine = upload(received=len(self.kept))

    @invariant()
    def kept_is_a_prefix(self) -> None:
        assert bytes(self.kept) == self.document[: len(self.kept)]
        if isinstance(self.machine.state, Receiving):
            assert self.machine.state.received == len(self.kept)


TestAgainstAByteArray = AgainstAByteArray.TestCase
TestAgainstAByteArray.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(cuts=st.lists(st.integers(1, 99), max_size=8))
def test_any_cutting_of_a_document_is_kept_whole(cuts: list[int]) -> None:
    machine, offset = upload(), 0
    for size in cuts:
        machine.handle(Chunk(offset, size))
        offset += size
    assert machine.state == Receiving(offset, None)
