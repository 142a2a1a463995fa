"""A record is what was written, or none."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.server.results.record import MAGIC, BadRecord, decode, encode, record_of
from longspan.server.results.serializer import RecordSerializer
from longspan.v1 import inference_service_pb2 as pb
from tests.results.records import key_of, record

deltas = st.builds(
    lambda text: pb.GenerateResponse(delta=pb.TextDelta(text=text)), st.text(max_size=5)
)
thoughts = st.builds(
    lambda text: pb.GenerateResponse(reasoning=pb.ReasoningDelta(text=text)), st.text(max_size=5)
)
citations = st.builds(
    lambda index: pb.GenerateResponse(citation=pb.Citation(index=index)), st.integers(0, 9)
)
said = st.lists(st.one_of(deltas, thoughts, citations), max_size=12)
END = pb.Completed(model="m")


def _texts(events: list[pb.GenerateResponse]) -> list[tuple[str, object]]:
    """What a caller puts together: texts joined, other events in their places."""
    whole: list[tuple[str, object]] = []
    for event in events:
        kind = str(event.WhichOneof("event"))
        if kind == "citation":
            whole.append((kind, event.citation.index))
            continue
        text = event.delta.text if kind == "delta" else event.reasoning.text
        if whole and whole[-1][0] == kind:
            whole[-1] = (kind, str(whole[-1][1]) + text)
        else:
            whole.append((kind, text))
    return whole


@given(said)
def test_a_record_comes_back_whole_with_its_pieces_joined(
    events: list[pb.GenerateResponse],
) -> None:
    made = record_of(key_of(1), 12.5, events, END)
    back = decode(encode(made))
    assert back == made
    assert back.created_s == 12.5
    assert back.completed == END
    assert _texts(list(back.said)) == _texts(events)
    kinds = [event.WhichOneof("event") for event in back.said]
    assert not any(a == b != "citation" for a, b in pairwise(kinds))


@given(st.integers(min_value=0), st.integers(1, 255))
def test_one_changed_byte_is_no_record(place: int, change: int) -> None:
    data = bytearray(encode(record()))
    data[place % len(data)] ^= change
    with pytest.raises(BadRecord):
        decode(bytes(data))
    assert RecordSerializer().loads(bytes(data)) is None


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda end: MAGIC + end))
def test_bytes_that_nobody_wrote_are_no_record(data: bytes) -> None:
    with pytest.raises(BadRecord):
        decode(data)


@given(st.integers(min_value=0))
def test_a_cut_record_is_none(length: int) -> None:
    data = encode(record())
    with pytest.raises(BadRecord):
        decode(data[: length % len(data)])


def test_a_record_without_its_end_is_none() -> None:
    made = record()
    unfinished = type(made)(made.key, made.created_s, made.said)
    with pytest.raises(BadRecord):
        decode(encode(unfinished))
