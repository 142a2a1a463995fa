"""Start a server, stream two documents up, ask, ask again, stop: what ``make demo`` runs.

Everything goes through the public client, as in a program of your own.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from longspan.client import (
    Ask,
    AsyncAnswerStream,
    AsyncClient,
    Citation,
    Document,
    Progress,
    Task,
    TextDelta,
)

EXAMPLES = Path(__file__).parent
START_S = 120.0
CHUNK_BYTES = 4096
CHUNK_PAUSE_S = 0.2


@contextmanager
def server() -> Iterator[str]:
    """A real server process with one worker; its address."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder, "ready.json")
        command = [sys.executable, "-m", "longspan.server", "--listen", "127.0.0.1:0"]
        command += ["--data-dir", f"{folder}/data", "--ready-file", str(ready)]
        print("Starting a server and its worker ...")
        process = subprocess.Popen([*command, "--log-level", "warning"])
        try:
            deadline = time.monotonic() + START_S
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the server did not start; its last words are above")
                time.sleep(0.05)
            yield f"127.0.0.1:{json.loads(ready.read_text())['port']}"
        finally:
            process.terminate()
            status = process.wait()
        print(f"\nThe server has stopped (exit status {status}).")


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    """The document as it would arrive over a slow line."""
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]
        await asyncio.sleep(CHUNK_PAUSE_S)


async def show(stream: AsyncAnswerStream, client: AsyncClient) -> Document:
    """Print progress and the answer as they come; compare each quote with the document."""
    citations: list[Citation] = []
    async for event in stream:
        match event:
            case Progress():
                print(
                    f"  {event.stage.value:<9} {event.bytes_received:>6} bytes received, "
                    f"{event.tokens:>5} tokens, "
                    f"{event.passages_embedded:>3} of {event.passages:>3} passages embedded"
                )
            case TextDelta(text):
                print(f"  {text}", end="")
            case Citation():
                citations.append(event)
    answer = await stream.result()
    [document] = answer.completed.documents
    for citation in citations:
        data = await client.read(document, citation.span)
        verdict = "equal" if data.decode() == citation.quote else "DIFFERENT"
        print(f"  [{citation.index}] bytes {citation.span.start}-{citation.span.end}: {verdict}")
        assert verdict == "equal"
    usage, timings = answer.completed.usage, answer.completed.timings
    print(
        f"  first line {timings.first_delta_s:.2f} s after the last byte; "
        f"{usage.cached_tokens} of {usage.document_tokens} document tokens reused"
    )
    return document


async def stream_up(client: AsyncClient, name: str, task: Task) -> Document:
    """Upload and ask in one call."""
    data = (EXAMPLES / name).read_bytes()
    print(f"\n{name}, {len(data)} bytes in chunks of {CHUNK_BYTES}: {describe(task)}")
    async with client.analyze(chunks(data), task, title=name) as stream:
        return await show(stream, client)


async def ask_again(client: AsyncClient, document: Document, question: str) -> None:
    """Ask about a document that is already there."""
    print(f"\n{document.title} again: {question}")
    started = time.monotonic()
    async with client.ask(document, question) as stream:
        await show(stream, client)
    print(f"  the whole call took {time.monotonic() - started:.2f} s")


def describe(task: Task) -> str:
    """The task as a heading."""
    return task.question if isinstance(task, Ask) else type(task).__name__


async def main() -> None:
    """The whole tour."""
    with server() as target:
        async with AsyncClient(target) as client:
            agreement = await stream_up(
                client,
                "services-agreement.md",
                Ask("How many hours does the supplier have to report a security incident?"),
            )
            report = await stream_up(
                client,
                "annual-report.md",
                Ask("How sensitive are earnings to the price of copper?"),
            )
            await ask_again(client, agreement, "What interest is charged on late payments?")
            print("\nannual-report.md in five sentences:")
            async with client.summarize(report, max_sentences=5) as stream:
                await show(stream, client)


if __name__ == "__main__":
    asyncio.run(main())
