"""A newer stream of an upload takes over from an older one, at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from tests.e2e.conversation import Uploading, read_back, reason
from tests.e2e.workers import quiet_log, serving_with
from tests.support.seeds import seeded
from tests.support.serving import Serving

RACES = 30
SIZE_BYTES = 700_000
CHUNK_BYTES = 50_000


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


@pytest_asyncio.fixture
async def storing(tmp_path: Path) -> AsyncIterator[Serving]:
    """A server without a model."""
    async with serving_with(tmp_path, encoder="none") as serving:
        yield serving


async def _busy(uploading: Uploading) -> bool:
    """True when the stream was told to give way, False when it ended well."""
    try:
        await uploading.hear_to_the_end()
    except grpc.aio.AioRpcError as error:
        told = (error.code(), reason(error))
        if told != (grpc.StatusCode.ABORTED, "UPLOAD_BUSY"):
            raise
        return True
    return False


async def test_an_older_stream_gives_way_and_no_byte_is_lost(storing: Serving) -> None:
    data = seeded().randbytes(SIZE_BYTES // 2).hex().encode()
    older, newer = Uploading(storing.documents), Uploading(storing.documents)
    await older.open()
    await older.send(data, 0, 400_000, CHUNK_BYTES)
    while older.acknowledged == 0:
        await older.hear()
    start = await newer.open(older.upload_id)
    assert await _busy(older)
    assert older.acknowledged <= start <= 400_000
    await newer.send(data, start, len(data), CHUNK_BYTES)
    document = await newer.finish(data)
    assert await read_back(storing.documents, document.document_id) == data


async def test_a_take_over_in_the_middle_of_a_commit_ends_with_the_whole_document(
    storing: Serving,
) -> None:
    rng = seeded()
    gave_way = 0
    for _ in range(RACES):
        data = rng.randbytes(SIZE_BYTES // 2).hex().encode()
        older, newer = Uploading(storing.documents), Uploading(storing.documents)
        await older.open()
        await older.send(data, 0, len(data), CHUNK_BYTES)
        await older.commit(data)
        hearing = asyncio.create_task(_busy(older))
        await asyncio.sleep(rng.uniform(0.0, 0.01))
        start = await newer.open(older.upload_id)
        assert start >= older.acknowledged
        await newer.send(data, start, len(data), CHUNK_BYTES)
        document = await newer.finish(data)
        gave_way += await hearing
        assert older.stored in (None, document)
        assert await read_back(storing.documents, document.document_id) == data
        await storing.settled()
    print(f"{gave_way} of {RACES} older streams gave way, the others were stored")
