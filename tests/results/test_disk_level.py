"""Level 2 on a disk in trouble."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.store import BlobStore
from longspan.blobstore.verify import Report
from longspan.server.results.disk_level import THREADS, open_disk
from tests.results.records import OWNER, key_of, record, text_of

WAIT_S = 20.0


async def test_a_folder_that_could_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    """A server need not be started anew when its disk is there again."""
    folder = tmp_path / "results"
    folder.write_text("in the way")
    with ThreadPoolExecutor(1) as threads:
        level = await open_disk(folder, StoreLimits(1 << 20), threads)
        await level.put(record(1, "One."), OWNER)
        assert await level.get(key_of(1)) is None
        folder.unlink()
        async with asyncio.timeout(WAIT_S):
            while await level.get(key_of(1)) is None:
                await level.put(record(1, "One."), OWNER)
                await asyncio.sleep(0.05)
        assert text_of(await level.get(key_of(1))) == "One."
        await level.close()


async def test_who_verifies_leaves_room_for_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Event()

    def slowly(store: BlobStore) -> Report:
        done.wait(WAIT_S)
        return Report()

    monkeypatch.setattr(BlobStore, "verify", slowly)
    with ThreadPoolExecutor(THREADS) as threads:
        level = await open_disk(tmp_path, StoreLimits(1 << 20), threads)
        await level.put(record(1, "One."), OWNER)
        verifying = [asyncio.create_task(level.verify()) for _ in range(2 * THREADS)]
        await asyncio.sleep(0)
        try:
            assert text_of(await level.get(key_of(1))) == "One."
        finally:
            done.set()
        assert await asyncio.gather(*verifying) == [Report()] * len(verifying)
        await level.close()
