"""Memory while a million tokens stream through: what a worker holds as the document grows.

    python -m benchmarks streaming-memory

A server with a tiny random Qwen2 under the real Qwen tokenizer; a book, repeated, is uploaded
chunk by chunk and asked about at its end, under policies whose memory is bounded. Peak memory is
the worker's own (``VmHWM``), read when so many tokens have been prefilled.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import psutil

from benchmarks.generation_models import QWEN_VOCABULARY, ModelSize, write_model
from benchmarks.server_process import server_process
from benchmarks.texts import long_text
from longspan.client import Ask, AsyncClient, Completed, Generation, Progress

TINY = ModelSize(
    hidden=64, intermediate=256, layers=4, heads=2, kv_heads=1, vocabulary=QWEN_VOCABULARY
)
POSITIONS = 1 << 21
TOKENS = 1 << 20
CHARS = TOKENS * 45 // 10
"""A little more text than a million tokens: the book has about 4.3 characters a token."""
CHUNK_BYTES = 256 << 10
MILESTONES = (65_536, 131_072, 262_144, 524_288, 1_000_000)
POLICIES = ("window", "summary")
FLAGS = ("--encoder", "none", "--dtype", "float32", "--kv-memory", "128MiB")
MIB = 1 << 20
Row = dict[str, object]


async def chunks(text: bytes) -> AsyncIterator[bytes]:
    """The text as it is sent."""
    for start in range(0, len(text), CHUNK_BYTES):
        yield text[start : start + CHUNK_BYTES]


def peak_bytes(port: int) -> int:
    """The most memory that the worker behind a port has had."""
    workers = [
        process
        for process in psutil.Process().children(recursive=True)
        if "longspan.worker" in process.cmdline()
    ]
    (worker,) = workers
    status = Path(f"/proc/{worker.pid}/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


async def stream(port: int, policy: str, text: bytes) -> list[Row]:
    """Peaks at the milestones of one document, and what it held at its end."""
    ask = Ask(
        "What does the document say?",
        generation=Generation(max_tokens=8, temperature=0, attention=policy),
    )
    rows: list[Row] = []
    left = list(MILESTONES)
    async with (
        AsyncClient(f"127.0.0.1:{port}") as client,
        client.analyze(chunks(text), ask) as answer,
    ):
        async for event in answer:
            reached = event.tokens_prefilled if isinstance(event, Progress) else 0
            if isinstance(event, Completed):
                reached = event.usage.document_tokens
                assert event.attention is not None
                held = event.attention.kv_bytes
            while left and reached >= left[0]:
                rows.append({"policy": policy, "tokens": left.pop(0)})
                rows[-1]["peak MiB"] = round(peak_bytes(port) / MIB, 1)
                print(rows[-1], file=sys.stderr, flush=True)
    full = TOKENS * TINY.kv_floats() * 4
    rows.append({"policy": policy, "tokens": "end", "kv MiB": round(held / MIB, 2)})
    rows[-1]["full attention would hold MiB"] = round(full / MIB, 1)
    return rows


def main() -> list[Row]:
    """Run the measurement, a server for each policy."""
    text = long_text(CHARS).encode()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = write_model(TINY, Path(name))
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config["max_position_embeddings"] = POSITIONS
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        for policy in POLICIES:
            with server_process("--model", str(folder), "--attention", policy, *FLAGS) as port:
                rows += asyncio.run(stream(port, policy, text))
    return rows


if __name__ == "__main__":
    for row in main():
        print(row)
