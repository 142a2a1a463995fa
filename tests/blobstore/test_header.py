"""A header says again what it was told, and nothing else passes for one."""

from __future__ import annotations

import math

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from longspan.blobstore.header import MIN_BYTES, SUM_BYTES, Damaged, Header, decode, header_bytes
from tests.blobstore.folders import MAGIC, key

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
HEADERS = st.builds(
    Header,
    key=st.binary(min_size=32, max_size=32),
    payload_bytes=st.integers(0, 2**30),
    created_ns=st.integers(0, 2**63 - 1),
    tenant=TEXTS,
    subject=TEXTS,
    label=TEXTS,
    parent=st.none() | st.binary(min_size=32, max_size=32),
    cost_s=st.floats(0, 1e9),
    depth=st.integers(0, 2**32 - 1),
)


@given(HEADERS)
def test_a_header_is_read_as_it_was_written(header: Header) -> None:
    data = header.encode(MAGIC) + bytes(SUM_BYTES)
    assert decode(data, MAGIC) == header
    assert len(data) == header.file_bytes - header.payload_bytes == header_bytes(data, MAGIC)


@given(st.binary(max_size=400), st.booleans(), st.booleans())
def test_other_bytes_are_damage(data: bytes, begins_well: bool, sums: bool) -> None:
    if begins_well:
        data = Header(key(1), 0, 0, "t").encode(MAGIC)[:16] + data
    if sums:  # what somebody else wrote with care
        data += xxhash.xxh3_64_digest(data) + bytes(SUM_BYTES)
    with pytest.raises(Damaged):
        decode(data, MAGIC)


@pytest.mark.parametrize(
    "fields",
    [
        {"key": b"short"},
        {"parent": b"short"},
        {"cost_s": math.nan},
        {"cost_s": math.inf},
        {"cost_s": -1.0},
        {"tenant": "é" * 600},
        {"subject": "s" * 1025},
        {"label": "\ud800"},
        {"payload_bytes": 2**30 + 1},
    ],
)
def test_what_no_file_can_have_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Header(**{"key": key(1), "payload_bytes": 0, "created_ns": 0, "tenant": "t", **fields})  # type: ignore[arg-type]


def test_the_shortest_header_has_no_texts() -> None:
    assert Header(key(1), 5, 0, "").file_bytes == MIN_BYTES + 5
