"""One whole answer as bytes: protobuf behind a version and a checksum.

magic 8 | xxh3-128 of the payload 16 | payload: ``longspan.internal.v1.ResultRecord``
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import xxhash
from google.protobuf.message import DecodeError

from longspan.internal.v1.result_record_pb2 import ResultRecord
from longspan.v1 import inference_service_pb2 as pb

MAGIC = b"LSRES001"
SUM_BYTES = 16
PAYLOAD_AT = len(MAGIC) + SUM_BYTES
# Events that are part of an answer; reports of progress are not.
KINDS = frozenset({"delta", "reasoning", "citation", "unverified", "completed"})


class BadRecord(Exception):
    """The bytes are no record of this version, or not what was written."""


@dataclass(frozen=True, slots=True)
class Record:
    """An answer that can be told again.

    Attributes:
        key: of the request.
        created_s: when it was made, in seconds since the epoch.
        events: in order; the last one is completed, and no other.
    """

    key: bytes
    created_s: float
    events: tuple[pb.GenerateResponse, ...]

    @property
    def said(self) -> tuple[pb.GenerateResponse, ...]:
        """The events before the last."""
        return self.events[:-1]

    @property
    def completed(self) -> pb.Completed:
        """The end."""
        return self.events[-1].completed


def record_of(
    key: bytes, created_s: float, said: Iterable[pb.GenerateResponse], completed: pb.Completed
) -> Record:
    """A record of what was said; neighbouring pieces of text become one."""
    events = (*_joined(said), pb.GenerateResponse(completed=completed))
    return Record(key, created_s, events)


def encode(record: Record) -> bytes:
    """A record as bytes."""
    message = ResultRecord(
        key=record.key, created_us=int(record.created_s * 1e6), events=record.events
    )
    payload = message.SerializeToString()
    return MAGIC + xxhash.xxh3_128_digest(payload) + payload


def decode(data: bytes) -> Record:
    """The record that ``encode`` was given.

    Raises:
        BadRecord: it is none.
    """
    payload = data[PAYLOAD_AT:]
    if data[: len(MAGIC)] != MAGIC:
        raise BadRecord("another version")
    if data[len(MAGIC) : PAYLOAD_AT] != xxhash.xxh3_128_digest(payload):
        raise BadRecord("the checksum differs")
    try:
        message = ResultRecord.FromString(payload)
    except DecodeError as error:
        raise BadRecord("not a record") from error
    kinds = [event.WhichOneof("event") for event in message.events]
    if not KINDS.issuperset(kinds) or kinds.count("completed") != 1 or kinds[-1] != "completed":
        raise BadRecord("not the events of an answer")
    return Record(message.key, message.created_us / 1e6, tuple(message.events))


def _joined(said: Iterable[pb.GenerateResponse]) -> Iterator[pb.GenerateResponse]:
    kind, pieces = "", list[str]()
    for event in said:
        name = event.WhichOneof("event") or ""
        if pieces and name != kind:
            yield _text(kind, pieces)
            pieces = []
        kind = name
        if kind in ("delta", "reasoning"):
            pieces.append(event.delta.text if kind == "delta" else event.reasoning.text)
        else:
            yield event
    if pieces:
        yield _text(kind, pieces)


def _text(kind: str, pieces: list[str]) -> pb.GenerateResponse:
    text = "".join(pieces)
    if kind == "delta":
        return pb.GenerateResponse(delta=pb.TextDelta(text=text))
    return pb.GenerateResponse(reasoning=pb.ReasoningDelta(text=text))
