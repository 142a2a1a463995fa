"""What a document's second question waits for: at once, and after server and worker restarted.

    python -m benchmarks second-question

A server with a small random Qwen2 under the real Qwen tokenizer, asked through the client about
stored documents of 32k tokens.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.generation_models import SMALL, write_model
from benchmarks.generation_overlap import GREEDY, Texts
from benchmarks.server_process import server_process
from longspan.client import AsyncClient, Completed, Reasoning, TextDelta

TOKENS = 32_768
ROUNDS = 3
PAGE = 256
FLAGS = ("--encoder", "none", "--kv-memory", "2GiB", "--dtype", "float32")
QUESTIONS = ("What does the document say?", "And what else?", "What is it about?")
Row = dict[str, object]
Waited = tuple[float, Completed]


async def first_token_s(client: AsyncClient, document: str, question: str) -> Waited:
    """Seconds to the first text of an answer; also its end."""
    started = time.perf_counter()
    first = 0.0
    async with client.ask(document, question, generation=GREEDY) as stream:
        async for event in stream:
            if isinstance(event, TextDelta | Reasoning) and not first:
                first = time.perf_counter() - started
            if isinstance(event, Completed):
                return first, event
    raise RuntimeError("no answer")


async def cold_and_warm(port: int, documents: list[str]) -> tuple[list[Waited], list[Waited]]:
    """First and second questions about new documents; their ids go into ``documents``."""
    texts = Texts()
    cold, warm = [], []
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        for _ in range(ROUNDS):
            stored = await client.upload(texts.take(TOKENS))
            documents.append(stored.document_id)
            cold.append(await first_token_s(client, stored.document_id, QUESTIONS[0]))
            warm.append(await first_token_s(client, stored.document_id, QUESTIONS[1]))
    return cold, warm


async def restarted(port: int, documents: list[str]) -> list[Waited]:
    """Questions about documents of an earlier life."""
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        return [await first_token_s(client, document, QUESTIONS[2]) for document in documents]


def row(name: str, waited: list[Waited], cold_s: float) -> Row:
    """One line of the table."""
    pages = [
        end.usage.cached_tokens / (end.usage.document_tokens // PAGE * PAGE) for _, end in waited
    ]
    seconds = median(took for took, _ in waited)
    return {
        "question": name,
        "document tokens": waited[0][1].usage.document_tokens,
        "first token s": round(seconds, 3),
        "of cold": round(seconds / cold_s, 3),
        "pages found": round(min(pages), 3),
    }


def main() -> list[Row]:
    """Run the measurement."""
    documents: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        model = write_model(SMALL, Path(name) / "model")
        flags = ("--model", str(model), "--data-dir", f"{name}/data", *FLAGS)
        with server_process(*flags) as port:
            cold, warm = asyncio.run(cold_and_warm(port, documents))
        with server_process(*flags) as port:
            again = asyncio.run(restarted(port, documents))
    cold_s = median(took for took, _ in cold)
    return [
        row("first", cold, cold_s),
        row("second", warm, cold_s),
        row("after a restart", again, cold_s),
    ]


if __name__ == "__main__":
    for line in main():
        print(line)
