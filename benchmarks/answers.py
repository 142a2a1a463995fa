"""Last byte to first line of an answer, on the annual report, instant and paced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.server_process import server_process
from longspan.client import Ask, AsyncClient, TextDelta

REPORT = Path(__file__).resolve().parents[1] / "examples" / "annual-report.md"
QUESTION = "How sensitive are earnings to the price of copper?"
CHUNK_BYTES = 4096
PACED_S = 8.0
ROUNDS = 3


class Upload:
    """The report in chunks; remembers when the last one left."""

    def __init__(self, number: int, seconds: float) -> None:
        # Other bytes each time: an index found on disk would answer at once.
        self._data = REPORT.read_bytes() + f"\n\nCopy {number}.\n".encode()
        self._pause_s = seconds * CHUNK_BYTES / len(self._data)
        self.last_byte_s = 0.0

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, over the time given."""
        for start in range(0, len(self._data), CHUNK_BYTES):
            if start:
                await asyncio.sleep(self._pause_s)
            self.last_byte_s = time.perf_counter()
            yield self._data[start : start + CHUNK_BYTES]


async def wait_for_line(client: AsyncClient, upload: Upload) -> float:
    """Seconds from the last byte to the first line."""
    async with client.analyze(upload.chunks(), Ask(QUESTION), title="report") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                return time.perf_counter() - upload.last_byte_s
    raise RuntimeError("no answer")


async def measure(port: int) -> list[dict[str, object]]:
    """One row a way of uploading, and one for a second question."""
    rows: list[dict[str, object]] = []
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        number = 0
        for name, seconds in (("instant", 0.0), (f"paced over {PACED_S:g} s", PACED_S)):
            times = []
            for _ in range(ROUNDS):
                number += 1
                times.append(await wait_for_line(client, Upload(number, seconds)))
            rows.append({"upload": name, **_seconds(times)})
        document = await client.upload(REPORT)
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            async with client.ask(document, QUESTION) as stream:
                await stream.result()
            times.append(time.perf_counter() - started)
        rows.append({"upload": "none: the document is stored", **_seconds(times)})
    return rows


def _seconds(times: list[float]) -> dict[str, object]:
    ordered = sorted(times)
    return {
        "best s": round(ordered[0], 3),
        "median s": round(ordered[len(ordered) // 2], 3),
        "worst s": round(ordered[-1], 3),
    }


def main() -> list[dict[str, object]]:
    """Run the measurement."""
    with server_process() as port:
        return asyncio.run(measure(port))


if __name__ == "__main__":
    print(main())
