"""Answers for tests."""

from __future__ import annotations

import time

from longspan.server.identity import Tenant
from longspan.server.results.first_level import Owner
from longspan.server.results.record import Record, record_of
from longspan.v1 import inference_service_pb2 as pb

OWNER = Owner(Tenant("anna"), "doc_1")


def key_of(number: int) -> bytes:
    """A key."""
    return number.to_bytes(32)


def record(number: int = 0, text: str = "Yes.") -> Record:
    """An answer of one piece of text."""
    said = [pb.GenerateResponse(delta=pb.TextDelta(text=text))]
    completed = pb.Completed(model="m", finish_reason=pb.FINISH_REASON_STOP)
    return record_of(key_of(number), time.time(), said, completed)


def text_of(found: Record | None) -> str | None:
    """The text of an answer that was found."""
    return None if found is None else "".join(event.delta.text for event in found.said)
