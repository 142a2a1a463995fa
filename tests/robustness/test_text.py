"""Text that programs stumble over: kept bit by bit and read, or refused at the byte."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.raw_calls import ask, generate, read, refused, store, upload, whole
from tests.e2e.workers import serving_with
from tests.pool.harness import config
from tests.support.serving import Serving
from tests.worker.models import skip_without_embedded

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = {
    "NUL": "The fee\x00 is due.\x00",
    "byte order mark": "\ufeffThe fee is due. \ufeff",
    "right to left": "الرسوم مستحقة يوم الاثنين. \u202eThe fee\u202c is due. \u200f",
    "joiners": "👩‍👩‍👧‍👦 pays. 🏳️‍🌈 pays. \u200d\u200b\u2060",
    "line ends": "The\r\nfee\ris\ndue\u2028on\u2029Monday.\x85\x0b\x0c",
    "four bytes": "𝔗𝔥𝔢 𝔣𝔢𝔢 😀😀😀",
    "no characters": "\uffff\ufffe\U0010ffff is due.",
    "combining": "T" + "\u0301" * 100_000 + "he fee is due.",
    "one word": "x" * 200_000,
    "one line of blanks": " " * 200_000 + "due",
    "all controls": "".join(map(chr, range(32))) + "\x7f is due.",
}
BAD = {
    "high surrogate": (b"abc\xed\xa0\x80", 3),
    "surrogate pair": (b"\xed\xa0\xbd\xed\xb8\x80", 0),
    "latin 1": ("Gebühr".encode("latin-1"), 3),
    "UTF-16": ("The fee".encode("utf-16"), 0),
    "beyond Unicode": (b"ab\xf4\x90\x80\x80", 2),
    "overlong NUL": (b"a\xc0\x80", 1),
    "cut off": ("fee 😀".encode()[:-1], 4),
    "gzip": (b"\x1f\x8b\x08\x00", 1),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """The real tokenizer, and vectors that cost nothing."""
    skip_without_embedded()
    async with serving_with(
        tmp_path_factory.mktemp("data"), config(window_tokens=100_000)
    ) as running:
        yield running


@pytest.mark.parametrize("kind", GOOD)
async def test_any_text_is_kept_and_can_be_asked(serving: Serving, kind: str) -> None:
    data = GOOD[kind].encode()
    # Cut within characters where it is short; the first bytes one by one.
    document = await store(serving, data)
    events, refusal = await upload(serving, whole(data, range(1, min(len(data), 40))))
    assert refusal is None
    assert events[-1].stored.document.document_id == document.document_id
    assert await read(serving, document.document_id) == data
    assert document.size_chars == len(GOOD[kind])
    answer = await generate(serving, [document.document_id], ask("What is due?"))
    for citation in answer.citations:
        assert data[citation.span.start : citation.span.end].decode() == citation.quote


@pytest.mark.parametrize("kind", BAD)
async def test_what_is_no_text_is_refused_at_its_byte(serving: Serving, kind: str) -> None:
    data, at = BAD[kind]
    for cuts in ((), range(1, len(data))):
        refusal = await refused(serving, whole(data, cuts))
        assert (refusal.reason, refusal.metadata["byte_offset"]) == ("INVALID_UTF8", str(at))
