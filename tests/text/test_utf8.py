"""Bytes become text exactly, and bad bytes are named exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.server.errors import InvalidUtf8
from longspan.server.text.utf8 import IncrementalUtf8
from tests.text.texts import HARD

CHUNKS = st.lists(st.binary(max_size=6), max_size=8)


def decode(chunks: list[bytes]) -> str:
    utf8 = IncrementalUtf8()
    text = "".join(utf8.decode(chunk) for chunk in chunks)
    utf8.finish()
    return text


@given(st.text(), st.lists(st.integers(0, 200), max_size=6))
def test_any_chunking_gives_the_same_text(text: str, places: list[int]) -> None:
    data = text.encode()
    cuts = sorted(min(place, len(data)) for place in places)
    chunks = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert decode(chunks) == text


@given(CHUNKS)
def test_bad_bytes_are_named_as_in_one_shot(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    valid = data.decode("utf-8", "replace").encode() == data
    if valid:
        assert decode(chunks).encode() == data
        return
    with pytest.raises(UnicodeDecodeError) as expected:
        data.decode("utf-8")
    with pytest.raises(InvalidUtf8) as raised:
        decode(chunks)
    assert raised.value.byte_offset == expected.value.start


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_byte_order_mark_nul_and_line_ends_are_kept(size: int) -> None:
    text = "\ufeffa\x00b\r\nc\rd\ufeff" + "".join(HARD)
    data = text.encode()
    assert decode([data[at : at + size] for at in range(0, len(data), size)]) == text


def test_a_document_that_ends_inside_a_code_point_is_refused_at_finish() -> None:
    utf8 = IncrementalUtf8()
    assert utf8.decode("ab€".encode()[:3]) == "ab"
    assert utf8.decode("€".encode()[1:2]) == ""
    with pytest.raises(InvalidUtf8) as raised:
        utf8.finish()
    assert raised.value.byte_offset == 2
    assert raised.value.metadata == {"field": "chunk.data", "byte_offset": "2"}
