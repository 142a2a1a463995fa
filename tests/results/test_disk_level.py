"""Level 2 on a disk in trouble."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from longspan.blobstore.limits import StoreLimits
from longspan.server.results.disk_level import open_disk
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
