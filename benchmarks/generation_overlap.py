"""How much of the prefill hides behind the upload: last byte to first token, one shot and paced.

    python -m benchmarks generation-overlap

A server with a small random Qwen2 under the real Qwen tokenizer, asked through the client. One
shot: the document is stored before, the clock starts with the question. Otherwise it starts with
the upload's last byte; the paced upload takes as long as the one shot's time to its first token.
Every round has a text of its own: no cache helps.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

from benchmarks.generation_models import SMALL, write_model
from benchmarks.server_process import server_process
from benchmarks.texts import long_text
from longspan.client import Ask, AsyncClient, Completed, Generation, Reasoning, TextDelta

QUESTION = "What does the document say?"
GREEDY = Generation(max_tokens=8, temperature=0)
ROUNDS = {8192: 3, 32_768: 2}
CHUNKS = 64
CHARS_A_TOKEN = 4
FLAGS = ("--encoder", "none", "--kv-memory", "2GiB", "--dtype", "float32")


class Upload:
    """A text in chunks of one size; remembers when the last one left."""

    def __init__(self, data: bytes, seconds: float) -> None:
        self._data = data
        self._chunk_bytes = -(-len(data) // CHUNKS)
        self._pause_s = seconds / CHUNKS
        self.last_byte_s = 0.0

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, the last of them when the time is over."""
        started = time.perf_counter()
        for number, start in enumerate(range(0, len(self._data), self._chunk_bytes), 1):
            due = started + number * self._pause_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self.last_byte_s = time.perf_counter()
            yield self._data[start : start + self._chunk_bytes]


class Texts:
    """Texts of a number of tokens, no two alike from the first token on."""

    def __init__(self, chars_a_token: int = CHARS_A_TOKEN) -> None:
        self._chars_a_token = chars_a_token
        self._served = 0

    def take(self, tokens: int) -> bytes:
        """English prose; about so many tokens."""
        self._served += 1
        chars = tokens * self._chars_a_token
        text = long_text(chars + 1000 * self._served)[-chars:]
        return f"Copy {self._served}. {text}".encode()


async def first_token_s(client: AsyncClient, data: bytes, seconds: float) -> tuple[float, int]:
    """Seconds from the last byte to the first text; also the document's tokens."""
    upload = Upload(data, seconds)
    first = 0.0
    async with client.analyze(upload.chunks(), Ask(QUESTION, generation=GREEDY)) as stream:
        async for event in stream:
            if isinstance(event, TextDelta | Reasoning) and not first:
                first = time.perf_counter()
            if isinstance(event, Completed):
                return first - upload.last_byte_s, event.usage.document_tokens
    raise RuntimeError("no answer")


async def upfront_s(client: AsyncClient, data: bytes) -> float:
    """Seconds to the first text when everything is stored first: what there is without overlap."""
    document = await client.upload(data)
    started = time.perf_counter()
    async with client.ask(document, QUESTION, generation=GREEDY) as stream:
        async for event in stream:
            if isinstance(event, TextDelta | Reasoning):
                return time.perf_counter() - started
    raise RuntimeError("no answer")


async def measure(port: int) -> list[dict[str, object]]:
    """One row a length: medians of rounds that take turns."""
    rows: list[dict[str, object]] = []
    texts = Texts()
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        await first_token_s(client, texts.take(1024), 0.0)
        for tokens, rounds in ROUNDS.items():
            stored, instant, paced = [], [], []
            for _ in range(rounds):
                stored.append(await upfront_s(client, texts.take(tokens)))
                took, counted = await first_token_s(client, texts.take(tokens), 0.0)
                instant.append(took)
                took, _ = await first_token_s(client, texts.take(tokens), median(stored))
                paced.append(took)
            rows.append(
                {
                    "document tokens": counted,
                    "one shot s": round(median(stored), 3),
                    "instant upload s": round(median(instant), 3),
                    "paced upload s": round(median(paced), 3),
                    "instant / one shot": round(median(instant) / median(stored), 3),
                    "paced / one shot": round(median(paced) / median(stored), 3),
                }
            )
    return rows


def main() -> list[dict[str, object]]:
    """Run the measurement."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(SMALL, Path(folder))
        with server_process("--model", str(model), *FLAGS) as port:
            return asyncio.run(measure(port))


if __name__ == "__main__":
    for row in main():
        print(row)
