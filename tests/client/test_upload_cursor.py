"""The cursor: every byte once, in order, within the window, whatever breaks."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from longspan.client import ConnectionLost, LongspanError, ProtocolError, UploadMissing
from longspan.client._replay_buffer import Supply
from longspan.client._upload import _MOVES, Chunk, Commit, Move, Open, State, UploadCursor

CHUNK, WINDOW = 7, 20


class UploadMachine(RuleBasedStateMachine):
    """A source, a cursor and a server that keeps bytes, loses streams and forgets uploads."""

    @initialize(document=st.binary(max_size=100))
    def start(self, document: bytes) -> None:
        self.document = document
        self.read = 0
        self.cursor = UploadCursor(chunk_bytes=CHUNK, window_bytes=WINDOW)
        self.known: dict[str, bytearray] = {}
        self.kept = bytearray()
        self.pipe: list[Chunk | Commit] = []
        self.commit: Commit | None = None

    @precondition(lambda self: self.cursor.supply is Supply.READING and self.cursor.room > 0)
    @rule(size=st.integers(1, CHUNK))
    def feed(self, size: int) -> None:
        data = self.document[self.read : self.read + min(size, self.cursor.room)]
        self.read += len(data)
        self.cursor.feed(data)

    @precondition(lambda self: self.cursor.supply is Supply.REWINDING)
    @rule(stale=st.booleans())
    def rewind(self, stale: bool) -> None:
        if stale:
            self.cursor.feed(b"read before the rewind was due")
        self.read = 0
        self.cursor.rewound()

    @rule(chunk_bytes=st.integers(1, 10), upload_number=st.integers(0, 1000))
    def send(self, chunk_bytes: int, upload_number: int) -> None:
        part = self.cursor.next_part()
        if isinstance(part, Open):
            upload_id = part.upload_id or f"up_{upload_number}"
            if not part.upload_id:
                self.known[upload_id] = bytearray()
            elif upload_id not in self.known:
                self.lose(UploadMissing("forgotten"))
                return
            self.kept = self.known[upload_id]
            self.cursor.accepted(upload_id, len(self.kept), chunk_bytes)
        elif part is not None:
            self.pipe.append(part)

    @precondition(lambda self: self.pipe)
    @rule()
    def arrive(self) -> None:
        part = self.pipe.pop(0)
        if isinstance(part, Commit):
            self.commit = part
            assert bytes(self.kept) == self.document
            assert part == Commit(len(self.document), hashlib.sha256(self.document).hexdigest())
            return
        assert part.offset == len(self.kept)
        assert 0 < len(part.data) <= CHUNK
        self.kept += part.data

    @precondition(lambda self: self.cursor.state in (State.SENDING, State.COMMITTED))
    @rule(share=st.floats(0, 1))
    def acknowledge(self, share: float) -> None:
        acked = self.cursor.acked_bytes
        self.cursor.acked(acked + int((len(self.kept) - acked) * share))

    @precondition(lambda self: self.cursor.state is not State.FINISHED)
    @rule()
    def break_stream(self) -> None:
        self.lose(ConnectionLost("cut"))

    @precondition(lambda self: self.known and self.cursor.state is not State.FINISHED)
    @rule()
    def forget(self) -> None:
        self.known.clear()
        self.lose(ConnectionLost("restarted with an empty disk"))

    @precondition(lambda self: self.commit is not None and self.cursor.state is State.COMMITTED)
    @rule()
    def confirm(self) -> None:
        self.cursor.finished()
        assert self.cursor.next_part() is None

    @invariant()
    def unacknowledged_bytes_fit_the_window(self) -> None:
        in_flight = sum(len(part.data) for part in self.pipe if isinstance(part, Chunk))
        unacked = len(self.kept) + in_flight - self.cursor.acked_bytes
        if self.cursor.state in (State.SENDING, State.COMMITTED):
            assert unacked <= WINDOW

    def lose(self, error: LongspanError) -> None:
        self.pipe.clear()
        self.commit = None
        self.cursor.broke(error)


TestUploadMachine = UploadMachine.TestCase
TestUploadMachine.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("move", Move)
def test_moves_outside_the_table_raise_and_leave_the_state(state: State, move: Move) -> None:
    cursor = UploadCursor()
    cursor.state = state
    if (state, move) in _MOVES:
        cursor._move(move)
        assert cursor.state is _MOVES[state, move]
        return
    with pytest.raises(ProtocolError):
        cursor._move(move)
    assert cursor.state is state


def test_more_acknowledged_than_sent_is_refused() -> None:
    cursor = UploadCursor()
    assert cursor.next_part() == Open("")
    cursor.accepted("up", 0, 100)
    with pytest.raises(ProtocolError, match="acknowledged 1 bytes"):
        cursor.acked(1)


def test_an_upload_that_was_never_resumed_cannot_be_missing() -> None:
    cursor = UploadCursor()
    cursor.next_part()
    with pytest.raises(UploadMissing):
        cursor.broke(UploadMissing("odd"))


def test_a_server_that_kept_more_than_was_acknowledged_gets_the_rest() -> None:
    cursor = UploadCursor(chunk_bytes=4, window_bytes=8)
    cursor.next_part()
    cursor.accepted("up", 6, 4)
    cursor.feed(b"abcd")
    assert cursor.next_part() is None
    cursor.feed(b"efgh")
    assert cursor.next_part() == Chunk(6, b"gh")
